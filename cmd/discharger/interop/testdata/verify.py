"""Verifies bundles with pymacaroons, as a homeserver in Python would."""

import base64
from datetime import datetime, timedelta

from pymacaroons import Verifier
from pymacaroons.serializers import BinarySerializer

from common import say, task


def uvarint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7f) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def macaroon_end(data, at):
    """Finds where a macaroon in the V2 binary format ends, which says nothing
    of its length: after its signature."""
    at += 1
    while True:
        field, at = uvarint(data, at)
        if field == 0:
            continue
        length, at = uvarint(data, at)
        at += length
        if field == 6:
            return at


def split(bundle):
    data = base64.urlsafe_b64decode(bundle + '=' * (-len(bundle) % 4))
    macaroons = []
    at = 0
    while at < len(data):
        end = macaroon_end(data, at)
        macaroons.append(BinarySerializer().deserialize_raw(data[at:end]))
        at = end
    return macaroons


def checker(now, seen):
    def check(condition):
        seen.append(condition)
        name, _, argument = condition.partition(' ')
        if name == 'time-before':
            before = datetime.strptime(argument.split('.')[0].rstrip('Z'), '%Y-%m-%dT%H:%M:%S')
            return now < before
        return name == 'declared' and argument.startswith('epoch ')
    return check


for case in task():
    conditions = []
    try:
        access, *discharges = split(case['bundle'])
        verifier = Verifier()
        now = datetime(1970, 1, 1) + timedelta(milliseconds=case['now'])
        verifier.satisfy_general(checker(now, conditions))
        ok = verifier.verify(access, bytes.fromhex(case['root_key']), discharge_macaroons=discharges)
        say('verified', ok=ok, conditions=conditions)
    except Exception as error:
        say('verified', ok=False, error=type(error).__name__, message=str(error))
