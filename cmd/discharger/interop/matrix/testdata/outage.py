"""A client made of matrix-nio that syncs for as long as standard input is open.

The first argument is its task in JSON. See outage.mjs.
"""

import asyncio
import json
import logging
import sys

from nio import AsyncClient, LoginError, RoomMessageText, SyncError

logging.disable(logging.CRITICAL)


def tell(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


async def main():
    task = json.loads(sys.argv[1])
    client = AsyncClient(task["url"], task["user"])
    answer = await client.login(task["password"])
    if isinstance(answer, LoginError):
        raise SystemExit(str(answer))
    client.add_event_callback(lambda _, event: tell("message", body=event.body), RoomMessageText)

    def failed(error):
        if error.status_code == "M_UNKNOWN_TOKEN":
            tell("over", why=str(error))

    client.add_response_callback(failed, SyncError)
    sync = asyncio.create_task(client.sync_forever(timeout=2000))
    await client.synced.wait()
    tell("ready")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    sync.cancel()
    await client.close()


asyncio.run(main())
