// A client made of matrix-js-sdk: logs in, syncs, sends a message every so
// often and waits until each comes back, for as long as it is told to, and logs
// out. Reads one task in JSON from standard input. What happened is the last line
// that it writes, in JSON; the library writes what it likes before that.
import { readFileSync } from "node:fs";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { ClientEvent, HttpApiEvent, RoomEvent, SyncState, createClient } from "matrix-js-sdk";

const task = JSON.parse(readFileSync(0, "utf8"));
const report = { refreshes: 0, sent: 0, received: 0, logged_out: 0, login: {}, after_logout: {} };

const login = await createClient({ baseUrl: task.url }).loginRequest({
    type: "m.login.password",
    identifier: { type: "m.id.user", user: task.user },
    password: task.password,
    ...(task.refresh && { refresh_token: true }),
});
report.login = { expires_in_ms: login.expires_in_ms, has_refresh_token: Boolean(login.refresh_token) };

const client = createClient({
    baseUrl: task.url,
    userId: login.user_id,
    deviceId: login.device_id,
    accessToken: login.access_token,
    ...(task.refresh && {
        refreshToken: login.refresh_token,
        // A client of its own: this one would refresh before it asks.
        tokenRefreshFunction: async (refreshToken) => {
            const answer = await createClient({ baseUrl: task.url }).refreshToken(refreshToken);
            report.refreshes++;
            return {
                accessToken: answer.access_token,
                refreshToken: answer.refresh_token,
                expiry: new Date(Date.now() + answer.expires_in_ms),
            };
        },
    }),
});
client.on(HttpApiEvent.SessionLoggedOut, () => report.logged_out++);

// Messages that were sent and have not come back in a sync yet.
const waiting = new Map();
client.on(RoomEvent.LocalEchoUpdated, (event) => {
    if (event.status === null) {
        report.received++;
        waiting.get(event.getContent().body)();
    }
});

await client.startClient({ initialSyncLimit: 1, pollTimeout: 2000 });
for (;;) {
    const [state] = await once(client, ClientEvent.Sync);
    if (state === SyncState.Prepared) break;
}
const { room_id } = await client.createRoom({ preset: "private_chat" });
// A message to a room that no sync has brought yet has no local echo.
while (!client.getRoom(room_id)) await once(client, ClientEvent.Room);

const until = Date.now() + task.milliseconds;
// A pause of the machine is not to be what was done too seldom.
for (let n = 0; Date.now() < until || n < 3 || (task.refresh && report.refreshes < 3); n++) {
    const body = `message ${n}`;
    const back = new Promise((resolve) => waiting.set(body, resolve));
    await client.sendTextMessage(room_id, body);
    report.sent++;
    await back;
    waiting.delete(body);
    await sleep(200);
}

const { accessToken } = client.http.opts;
client.stopClient();
await client.logout(true);
const after = await fetch(`${task.url}/_matrix/client/v3/account/whoami`, { headers: { Authorization: `Bearer ${accessToken}` } });
report.after_logout = { status: after.status, ...(await after.json()) };

process.stdout.write(JSON.stringify(report) + "\n", () => process.exit(0));
