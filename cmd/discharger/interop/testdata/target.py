"""Visits a service that asks for discharged macaroons, with the stock Python
bakery's client: twice with each of three discharges, and once more after the
session was ended."""

import macaroonbakery.httpbakery as httpbakery
import requests

from common import say, seen, task

todo = task()
client = httpbakery.Client(interaction_methods=[])

for _ in range(3):
    for _ in range(2):
        say('visited', **seen(client.request('GET', todo['account'])))
    requests.get(todo['expire'])

answer = requests.post(
    todo['logout'], data=todo['logout_for'],
    headers={'Content-Type': 'application/x-www-form-urlencoded'})
say('logged-out', **seen(answer))

try:
    say('visited', **seen(client.request('GET', todo['account'])))
except Exception as error:
    say('refused', error=type(error).__name__, message=str(error))
