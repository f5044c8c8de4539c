"""A homeserver and its client, both of the stock Python bakery. The homeserver
mints one access macaroon, and checks what the client makes of it."""

from datetime import datetime, timedelta, timezone

import macaroonbakery.bakery as bakery
import macaroonbakery.checkers as checkers
import macaroonbakery.httpbakery as httpbakery

from common import Client, refused, say, task, third_party

OPERATION = bakery.Op(entity='account', action='use')


class Later:
    """A clock at which every discharge has expired, and no access macaroon."""

    def utcnow(self):
        return datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(hours=2)


def check(homeserver, step, macaroons, clock=None):
    context = checkers.context_with_clock(checkers.AuthContext(), clock)
    declared = checkers.infer_declared(macaroons)
    try:
        homeserver.checker.auth([macaroons]).allow(context, [OPERATION])
        say(step, ok=True, conditions=[declared.get('epoch', '')])
    except Exception as error:
        say(step, ok=False, error=type(error).__name__, message=str(error))


todo = task()
homeserver = bakery.Bakery(
    location='python',
    key=bakery.PrivateKey.deserialize(todo['key']),
    locator=httpbakery.ThirdPartyLocator(allow_insecure=True),
)
access = homeserver.oven.macaroon(
    version=todo['version'],
    expiry=datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(days=1),
    caveats=[checkers.Caveat(location=todo['service'], condition=todo['condition'])],
    ops=[OPERATION],
)
client = Client(todo['mode'])

check(homeserver, 'bare', [access.macaroon])
for _ in range(3):
    macaroons = bakery.discharge_all(access, client.discharge)
    check(homeserver, 'accepted', macaroons)
    check(homeserver, 'expired', macaroons, Later())

client.logout(todo['service'] + '/logout', *third_party(access))
refused(access, client)
