'use strict';

// Verifies bundles with npm's macaroon, as a homeserver in JavaScript would.
// Its importMacaroons refuses every binary with more than one macaroon, so they
// are taken apart here.

const macaroon = require('macaroon');
const {say, task} = require('./common.cjs');

const uvarint = (data, at) => {
  let value = 0;
  for (let factor = 1; ; factor *= 128) {
    const byte = data[at++];
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) {
      return [value, at];
    }
  }
};

// macaroonEnd finds where a macaroon in the V2 binary format ends, which says
// nothing of its length: after its signature.
const macaroonEnd = (data, start) => {
  let at = start + 1;
  while (at < data.length) {
    let field, length;
    [field, at] = uvarint(data, at);
    if (field === 0) {
      continue;
    }
    [length, at] = uvarint(data, at);
    at += length;
    if (field === 6) {
      return at;
    }
  }
  throw new Error('macaroon has no signature');
};

const split = bundle => {
  const data = macaroon.base64ToBytes(bundle);
  const macaroons = [];
  for (let at = 0; at < data.length;) {
    const end = macaroonEnd(data, at);
    macaroons.push(macaroon.importMacaroon(data.slice(at, end)));
    at = end;
  }
  return macaroons;
};

const checker = (now, seen) => condition => {
  seen.push(condition);
  const [name, ...rest] = condition.split(' ');
  if (name === 'time-before') {
    return now < Date.parse(rest.join(' ')) ? null : 'expired';
  }
  return name === 'declared' && rest[0] === 'epoch' ? null : 'unknown';
};

for (const {bundle, root_key: rootKey, now} of task()) {
  const conditions = [];
  try {
    const [access, ...discharges] = split(bundle);
    access.verify(new Uint8Array(Buffer.from(rootKey, 'hex')), checker(now, conditions), discharges);
    say('verified', {ok: true, conditions});
  } catch (error) {
    say('verified', {ok: false, error: error.name, message: error.message});
  }
}
