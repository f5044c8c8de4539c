'use strict';

// Plays a client with npm's macaroon: a discharge, two refreshes, a logout, and
// one try after that. The library makes no requests. Those made here are what
// macaroon-bakery sends, with what it lacks for newer caveats and mode rotate.

const macaroon = require('macaroon');
const {form, say, send, task} = require('./common.cjs');

const todo = task();
// The bakery wraps a macaroon with V3 caveats, and puts those outside of it.
const access = macaroon.importMacaroon(todo.access.m || todo.access);
const external = todo.access.cdata || {};
let token = null;

// idField writes a caveat id as text where it is text.
const idField = id => {
  try {
    return ['id', new TextDecoder('utf-8', {fatal: true}).decode(id)];
  } catch (error) {
    return ['id64', macaroon.bytesToBase64(id)];
  }
};

const fields = id => {
  const all = [idField(id)];
  const payload = external[macaroon.bytesToBase64(id)];
  if (payload) {
    all.push(['caveat64', payload]);
  }
  if (token) {
    all.push(['token64', token], ['token-kind', 'refresh']);
  }
  return all;
};

const post = async (url, all) => {
  const body = all.map(field => field.map(encodeURIComponent).join('=')).join('&');
  return send('POST', url, {'Content-Type': form, 'Bakery-Protocol-Version': '1'}, body);
};

const getDischarge = (location, thirdPartyLocation, id, onOk, onError) => {
  post(thirdPartyLocation + '/discharge', [...fields(id), ['location', location]]).then(answer => {
    const body = JSON.parse(answer.body);
    if (answer.status !== 200) {
      onError({...answer, error: 'refused', message: body.Message});
      return;
    }
    token = body.RefreshToken || null;
    onOk(macaroon.importMacaroon(body.Macaroon.m || body.Macaroon));
  });
};

// Every time, the access macaroon is read anew: dischargeMacaroon gives the
// one it was given.
const discharge = () => new Promise((resolve, reject) => {
  macaroon.dischargeMacaroon(access.clone(), getDischarge, resolve, reject);
});

const main = async () => {
  for (let n = 0; n < 3; n++) {
    const macaroons = await discharge();
    say('discharged', {macaroons: macaroons.map(m => m.exportJSON())});
  }
  const id = access.caveats.find(caveat => caveat.vid).identifier;
  say('logged-out', await post(todo.logout, fields(id)));
  try {
    await discharge();
    say('discharged', {macaroons: []});
  } catch (refusal) {
    say('refused', refusal);
  }
};

main();
