'use strict';

const fs = require('fs');

// What the scripts in JavaScript have in common.

exports.task = () => JSON.parse(fs.readFileSync(0, 'utf8'));

exports.say = (step, what) => console.log(JSON.stringify({step, ...what}));

// send makes a request, and gives what there is to see of the answer.
exports.send = async (method, url, headers, body) => {
  const answer = await fetch(url, {method, headers, body});
  return {
    status: answer.status,
    content_type: answer.headers.get('Content-Type'),
    body: await answer.text(),
  };
};

exports.form = 'application/x-www-form-urlencoded';
