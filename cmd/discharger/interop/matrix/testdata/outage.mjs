// A client made of matrix-js-sdk that syncs for as long as standard input is open.
// The first argument is its task in JSON. What happens is written in lines of
// JSON: "ready", "message" and "over". With refresh "sdk" the library refreshes;
// with "own" this program does, ahead of need and for as long as it takes.
import { setTimeout as sleep } from "node:timers/promises";

const task = JSON.parse(process.argv[2]);
const { ClientEvent, HttpApiEvent, RoomEvent, SyncState, createClient } = await import(task.library);
const tell = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + "\n");
for (const level of ["log", "info", "warn", "error", "debug", "trace"]) console[level] = () => {};

const login = await createClient({ baseUrl: task.url }).loginRequest({
    type: "m.login.password",
    identifier: { type: "m.id.user", user: task.user },
    password: task.password,
    ...(task.refresh && { refresh_token: true }),
});
const renew = (token) => createClient({ baseUrl: task.url }).refreshToken(token);
const client = createClient({
    baseUrl: task.url,
    userId: login.user_id,
    deviceId: login.device_id,
    accessToken: login.access_token,
    ...(task.refresh === "sdk" && {
        refreshToken: login.refresh_token,
        tokenRefreshFunction: async (token) => {
            const answer = await renew(token);
            return {
                accessToken: answer.access_token,
                refreshToken: answer.refresh_token,
                expiry: new Date(Date.now() + answer.expires_in_ms),
            };
        },
    }),
});
client.on(HttpApiEvent.SessionLoggedOut, (error) => tell("over", { why: String(error) }));
client.on(ClientEvent.Sync, (state, _, data) => {
    if (state === SyncState.Stopped) tell("over", { why: "stopped" });
});
client.on(RoomEvent.Timeline, (event) => tell("message", { body: event.getContent().body }));

if (task.refresh === "own") {
    (async () => {
        for (let { refresh_token, expires_in_ms } = login; ; ) {
            await sleep(expires_in_ms / 2);
            for (let answer; !answer; ) {
                answer = await renew(refresh_token).catch(() => sleep(1000));
                if (!answer) continue;
                ({ refresh_token, expires_in_ms } = answer);
                client.setAccessToken(answer.access_token);
            }
        }
    })();
}
await client.startClient({ initialSyncLimit: 1, pollTimeout: 2000 });
client.once(ClientEvent.Sync, () => tell("ready"));
process.stdin.on("end", () => process.exit(0)).resume();
