// A server of HTTP that counts what each connection has asked for, with timers and a worker: node_server.cjs PORT
const http = require("node:http");
const crypto = require("node:crypto");
let served = 0;
const server = http.createServer((request, response) => {
  const body = [];
  request.on("data", (data) => body.push(data));
  request.on("end", () => {
    request.socket.asked = (request.socket.asked ?? 0) + 1;
    served++;
    // In the thread pool.
    crypto.pbkdf2(Buffer.concat(body), "salt", 10, 32, "sha256", (_, key) => {
      setTimeout(() =>
        response.end(
          JSON.stringify({
            asked: request.socket.asked,
            key: key.toString("hex"),
          }),
        ), 2);
    });
  });
});
server.keepAliveTimeout = 600_000;
server.listen(Number(process.argv[2]), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
