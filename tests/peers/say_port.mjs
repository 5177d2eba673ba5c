// Preloaded into a server that listens where PORT says: it listens on this machine only, on an address that the system
// chooses, and its URL is printed on stdout. Used by the tests for server-everything, which cannot tell its own port.

import { Server } from "node:net";

const { listen } = Server.prototype;
Server.prototype.listen = function (_port, ...rest) {
  this.once("listening", () => console.log(`http://127.0.0.1:${this.address().port}/mcp`));
  return listen.call(this, { port: 0, host: "127.0.0.1" }, ...rest);
};
