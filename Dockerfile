# The discharge service as an image of one static program and nothing else.
#
#   docker build -t discharger .
#   docker run --rm discharger demo
#   docker run -p 8090:8090 -v discharger:/data discharger
#
# From a program that was built before, without a Go image:
#
#   .ci/release
#   docker build --target prebuilt -t discharger .
#
# Keys and sessions are in /data. A configuration is mounted, and named in
# DISCHARGER_CONFIG, where the health check finds it too. Operators' paths stay on
# the container's loopback unless the configuration has admin_public.

ARG GO_IMAGE=docker.io/library/golang:1.26

# The common part of both images. Directories belong to the user that is set
# before them.
FROM scratch AS base
USER 65532:65532
WORKDIR /tmp
WORKDIR /data
ENV DISCHARGER_LISTEN=0.0.0.0:8090 \
    DISCHARGER_ADMIN_LISTEN=127.0.0.1:8091 \
    DISCHARGER_DATA_DIR=/data
EXPOSE 8090
VOLUME /data
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/discharger", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/discharger"]
CMD ["serve"]

# Without authorities for TLS to Redis: mount one, and name it in ca_file.
FROM base AS prebuilt
COPY LICENSE /LICENSE
COPY bin/discharger /discharger

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY cmd cmd
COPY config config
COPY discharger discharger
COPY policy policy
# The image is built without .git: "discharger version" prints these. For a checkout:
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" \
#     --build-arg COMMIT="$(git rev-parse HEAD)" --build-arg DATE="$(git show -s --format=%cI)" -t discharger .
ARG VERSION= COMMIT= DATE=
RUN --mount=type=cache,target=/root/.cache/go-build --mount=type=cache,target=/go/pkg/mod \
    CGO_ENABLED=0 go build -trimpath \
    -ldflags="-s -w -X main.buildVersion=$VERSION -X main.buildCommit=$COMMIT -X main.buildDate=$DATE" -o /out/discharger ./cmd/discharger

FROM base AS discharger
COPY LICENSE /LICENSE
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/discharger /discharger
