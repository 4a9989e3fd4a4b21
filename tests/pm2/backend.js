// The backend of the tests with the real PM2. It answers /api/health with its pid, its port and its database, and
// fails when a path asks it to.
// How a start turns out is said by files in its folder and not by the environment, of which PM2 forgets nothing:
// `broken` (it exits with 1), `delay` (milliseconds until it listens), `stubborn` (SIGINT does not end it).
// It prints nothing: an orphan that printed would die of it. Each start leaves its pid in the file `starts`.
'use strict';
const fs = require('fs');
const http = require('http');

fs.appendFileSync('starts', `${process.pid}\n`);
if (fs.existsSync('broken')) process.exit(1);
if (fs.existsSync('stubborn')) process.on('SIGINT', () => {});
const delay = fs.existsSync('delay') ? Number(fs.readFileSync('delay', 'utf8')) : 0;

let mute = false;
let degraded = false;
const ways = {
  '/api/health': () => {},
  '/exit': (query) => process.exit(Number(query.get('code'))),
  // Frozen, at the cost of a core.
  '/freeze': () => { for (;;); },
  // Frozen all the same, at no cost.
  '/block': () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0),
  // Takes connections and never answers; its event loop is well.
  '/mute': () => { mute = true; },
  '/degrade': () => { degraded = true; },
};

const server = http.createServer((request, response) => {
  if (mute) return;
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  const way = ways[pathname];
  const code = way === undefined ? 404 : degraded ? 503 : 200;
  const body = JSON.stringify({ status: code === 200 ? 'ok' : 'bad', pid: process.pid, port: process.env.PORT, db: process.env.DB });
  response.writeHead(code, { 'Content-Type': 'application/json', 'Content-Length': body.length, Connection: 'close' });
  // Only once the answer is on its way.
  response.end(body, () => setTimeout(() => way?.(searchParams), 20));
});
setTimeout(() => server.listen(Number(process.env.PORT), '127.0.0.1'), delay);
