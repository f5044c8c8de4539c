// A Hydrogen that syncs for as long as standard input is open. It is made for
// browsers, so some of what they have is made here. See outage.mjs.
import "fake-indexeddb/auto";

const task = JSON.parse(process.argv[2]);
const tell = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + "\n");
for (const level of ["log", "info", "warn", "error", "debug"]) console[level] = () => {};

const stored = new Map();
globalThis.window = globalThis;
globalThis.addEventListener ??= () => {};
globalThis.removeEventListener ??= () => {};
globalThis.localStorage = {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, value) => stored.set(key, String(value)),
    removeItem: (key) => stored.delete(key),
    key: (n) => [...stored.keys()][n],
    get length() { return stored.size; },
};
globalThis.document = { addEventListener() {}, createElement: () => ({}), documentElement: {}, querySelector: () => null };
globalThis.location = { hash: "" };
const { fetch } = globalThis;
globalThis.fetch = (url, { referrer, ...options }) => fetch(url, options); // outside a browser no page refers
const { Client, LoadStatus, Platform } = await import("hydrogen-view-sdk");

const platform = new Platform({ container: {}, assetPaths: {}, config: {}, options: {} });
platform._serviceWorkerHandler = { updateAuthData() {}, preventConcurrentSessionAccess() {} };
const client = new Client(platform);
const login = await client.queryLogin(task.url).result;
await client.startWithLogin(login.password(task.user, task.password));
if (client.loadStatus.get() !== LoadStatus.Ready) throw client.loadError ?? new Error(client.loadStatus.get());

// A sync that stopped is started again after what Hydrogen takes for a failure of
// the connection, and after nothing else.
client.sync.status.subscribe((status) => {
    const { error } = client.sync;
    if (String(status).includes("Stopped") && error?.name !== "ConnectionError") tell("over", { why: String(error) });
});
// The room is there as soon as the first sync is.
const timeline = await client.session.rooms.get(task.room).openTimeline();
timeline.entries.subscribe({
    onAdd: (_, entry) => tell("message", { body: entry.content?.body }),
    onUpdate() {},
    onRemove() {},
    onMove() {},
    onReset() {},
});
tell("ready");
process.stdin.on("end", () => process.exit(0)).resume();
