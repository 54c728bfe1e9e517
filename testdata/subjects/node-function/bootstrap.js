// A runtime of our own on the Runtime API: asks for invocations and answers
// them with what the handler returns.
'use strict';
const http = require('http');
const path = require('path');
const { handler } = require(path.join(__dirname, 'handler.js'));

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function call(method, name, body) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host, port, method, path: `/2018-06-01/runtime/${name}`, agent }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => resolve({ headers: response.headers, body: Buffer.concat(parts).toString() }));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function main() {
  for (;;) {
    const event = await call('GET', 'invocation/next');
    const id = event.headers['lambda-runtime-aws-request-id'];
    const answer = JSON.stringify(await handler(JSON.parse(event.body || 'null')));
    await call('POST', `invocation/${id}/response`, answer);
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
