// The backend in the tests with the real PM2. It answers /api/health with its pid, port and database; other paths make
// it fail.
// Files in its folder control how it starts, because PM2 never forgets an environment variable: `broken` (exits with
// 1), `delay` (milliseconds until it listens), `stubborn` (ignores SIGINT).
// It prints nothing, because an orphan that prints dies of SIGPIPE. Each start appends its pid to the file `starts`.
'use strict';
const fs = require('fs');
const http = require('http');

fs.appendFileSync('starts', `${process.pid}\n`);
if (fs.existsSync('broken')) process.exit(1);
if (fs.existsSync('stubborn')) process.on('SIGINT', () => {});
const delay = fs.existsSync('delay') ? Number(fs.readFileSync('delay', 'utf8')) : 0;

let mute = false;
let degraded = false;
const actions = {
  '/api/health': () => {},
  '/exit': (query) => process.exit(Number(query.get('code'))),
  // A busy loop.
  '/freeze': () => { for (;;); },
  // Blocked without using the CPU.
  '/block': () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0),
  // Accepts connections and never answers, although the event loop runs.
  '/mute': () => { mute = true; },
  '/degrade': () => { degraded = true; },
};

const server = http.createServer((request, response) => {
  if (mute) return;
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  const action = actions[pathname];
  const code = action === undefined ? 404 : degraded ? 503 : 200;
  const body = JSON.stringify({ status: code === 200 ? 'ok' : 'bad', pid: process.pid, port: process.env.PORT, db: process.env.DB });
  response.writeHead(code, { 'Content-Type': 'application/json', 'Content-Length': body.length, Connection: 'close' });
  // After the answer was sent.
  response.end(body, () => setTimeout(() => action?.(searchParams), 20));
});
setTimeout(() => server.listen(Number(process.env.PORT), '127.0.0.1'), delay);
