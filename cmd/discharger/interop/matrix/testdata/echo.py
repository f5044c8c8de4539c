"""A homeserver without data, on Twisted. It answers a request with the path that
it reads, and a login, registration or refresh with tokens. It reads paths in every
way that some server does: decoded until nothing changes, cut at a number sign, a
question mark or a zero byte, with backslashes as slashes, without parameters and dot
segments. Routes are compared in lower case."""

import json
import re
import sys
from urllib.parse import unquote

from twisted.internet import endpoints, reactor
from twisted.web import resource, server

BEARER = b"Bearer raw_token_"

HANDS_OUT = re.compile(r"/(_matrix/client|_synapse/(client|admin))/(?!.*/rooms/)(.*/)?(login|register|refresh)")


def read(raw):
    path = raw.decode("latin-1")
    while (decoded := unquote(path, "latin-1")) != path:
        path = decoded
    path = re.split("[#?\0]", path)[0].replace("\\", "/")
    segments = []
    for segment in path.split("/"):
        segment = segment.split(";")[0].strip()
        if segment == "..":
            segments = segments[:-1]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)


class Homeserver(resource.Resource):
    isLeaf = True
    logins = 0

    def render(self, request):
        request.setHeader(b"Content-Type", b"application/json")
        return json.dumps(self.answer(request)).encode("ascii")

    def answer(self, request):
        path = read(request.uri)
        authorization = request.getHeader(b"Authorization") or b""
        authorized = authorization.startswith(BEARER)
        if request.method in (b"POST", b"PUT") and HANDS_OUT.fullmatch(path.lower()):
            Homeserver.logins += 1
            n = Homeserver.logins
            return {
                "access_token": f"raw_token_{n}",
                "refresh_token": f"raw_token_r{n}",
                "user_id": "@a:localhost",
                "device_id": f"D{n}",
            }
        if request.uri == b"/_matrix/client/versions":
            return {"versions": ["v1.11"]}
        if request.uri == b"/_matrix/client/v3/account/whoami" and authorized:
            n = authorization[len(BEARER):].decode("ascii")
            return {"user_id": "@a:localhost", "device_id": f"D{n}"}
        return {"path": path, "authorized": authorized}


host, port = sys.argv[1].split(":")
endpoints.TCP4ServerEndpoint(reactor, int(port), interface=host).listen(server.Site(Homeserver()))
reactor.run()
