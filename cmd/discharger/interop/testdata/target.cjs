'use strict';

// Visits a service that asks for discharged macaroons, with npm's
// macaroon-bakery: twice with each of three discharges, and once more after the
// session was ended. Browsers' XMLHttpRequest is not here, so it gets another
// function to send requests with, for which it has a parameter.

const {Bakery} = require('macaroon-bakery');
const {form, say, send, task} = require('./common.cjs');

const todo = task();
const bakery = new Bakery({
  sendRequest: (url, method, headers, body, withCredentials, callback) => {
    send(method.toUpperCase(), url, headers, body || undefined).then(answer => callback({
      target: {
        status: answer.status,
        responseText: answer.body,
        getResponseHeader: name => name.toLowerCase() === 'content-type' ? answer.content_type : null,
      },
    }));
  },
});

const visit = () => new Promise(resolve => {
  bakery.get(todo.account, {}, (error, answer) => {
    if (error) {
      resolve(['refused', {error: 'callback', message: error}]);
      return;
    }
    resolve(['visited', {status: answer.target.status, body: answer.target.responseText}]);
  });
});

const main = async () => {
  for (let n = 0; n < 3; n++) {
    say(...await visit());
    say(...await visit());
    await send('GET', todo.expire);
  }
  say('logged-out', await send('POST', todo.logout, {'Content-Type': form}, todo.logout_for));
  say(...await visit());
};

main();
