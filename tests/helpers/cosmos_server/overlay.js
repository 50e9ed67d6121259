"use strict";
// A server that speaks Cosmos DB's HTTP protocol, for tests. See README.md beside this file.
//
// Accounts, databases, containers, partition key ranges and the query engine are those of the npm
// package @vercel/cosmosdb-server. Items are kept and served here, since what the package does with
// them differs from Azure in what a cache depends on.
//
// Run as: node overlay.js FOLDER_OF_NODE_MODULES [tls]. Says {"port": …} on its standard output when it
// listens, and ends when its standard input does.

const crypto = require("crypto");
const fs = require("fs");
const http = require("http");
const https = require("https");
const path = require("path");

const modules = path.resolve(process.argv[2]);
const lib = (name) => require(path.join(modules, "@vercel/cosmosdb-server/lib", name)).default;
const Account = lib("account");
const route = lib("routes");
const parseQuery = require(path.join(modules, "@zeit/cosmosdb-query")).default;

const KEY = "dGhpcyBpcyBubyBzZWNyZXQsIGl0IG9wZW5zIG5vdGhpbmcgYnV0IHRlc3RzCg==";
const TOKEN = "a-token-for-tests";
const ITEM_BYTES = 2 * 1024 * 1024;
const ITEMS = /^\/+dbs\/([^/]+)\/colls\/([^/]+)\/docs(?:\/([^/]+))?\/?$/;

let account;
let rids = 0;
const state = { skew: 0, rules: [], readOnly: false, counts: {}, charge: 0, open: 0, most: 0 };
const kept = new WeakMap(); // of a container: its items by partition key and id

const now = () => Date.now() / 1000 + state.skew;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const kilobytes = (size) => Math.max(1, Math.ceil(size / 1024));

class Refusal extends Error {
  constructor(status, message, headers = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

// -- items ----------------------------------------------------------------------------------------

const itemsOf = (container) => {
  if (!kept.has(container)) kept.set(container, new Map());
  return kept.get(container);
};

const placeOf = (partition, id) => JSON.stringify([partition, id]);

const at = (data, keyPath) =>
  keyPath.split("/").slice(1).reduce((found, name) => (found == null ? undefined : found[name]), data);

function isLive(item, container) {
  const standard = container.read().defaultTtl;
  if (standard == null) return true;
  const ttl = item.data.ttl == null ? standard : item.data.ttl;
  return ttl === -1 || now() < item.written + ttl;
}

function find(container, partition, id) {
  const items = itemsOf(container);
  const place = placeOf(partition, id);
  const item = items.get(place);
  if (item && !isLive(item, container)) {
    items.delete(place);
    return undefined;
  }
  return item;
}

function partitionOf(req, container, data) {
  const paths = container.read().partitionKey.paths;
  const header = req.headers["x-ms-documentdb-partitionkey"];
  if (header === undefined) return undefined;
  const partition = JSON.parse(header);
  if (partition.length !== paths.length) {
    throw new Refusal(400, "the partition key has another number of components than the container's");
  }
  if (data !== undefined && paths.some((keyPath, n) => at(data, keyPath) !== partition[n])) {
    throw new Refusal(400, "PartitionKey extracted from document doesn't match the one in the header");
  }
  return partition;
}

function checkItem(data, text) {
  if (typeof data.id !== "string" || !data.id) throw new Refusal(400, "missing id");
  if (/[/\\?#]/.test(data.id) || Buffer.byteLength(data.id) > 1023) {
    throw new Refusal(400, "The resource name contains invalid characters or is too long.");
  }
  if (Buffer.byteLength(text) > ITEM_BYTES) throw new Refusal(413, "Request size is too large");
  if (data.ttl !== undefined && (!Number.isInteger(data.ttl) || data.ttl === 0 || data.ttl < -1)) {
    throw new Refusal(400, "The input ttl is invalid. Ensure to provide a nonzero positive integer.");
  }
}

function put(container, partition, data, older) {
  rids += older ? 0 : 1;
  const rid = older ? older.rid : rids;
  const written = now();
  const item = {
    rid,
    written,
    data: { ...data, _rid: `rid-${rid}`, _self: "", _etag: `"${crypto.randomUUID()}"`, _ts: Math.floor(written) },
  };
  itemsOf(container).set(placeOf(partition, data.id), item);
  return item;
}

function checkMatch(req, item) {
  const match = req.headers["if-match"];
  if (match && match !== "*" && match !== item.data._etag) {
    throw new Refusal(412, "One of the specified pre-condition is not met");
  }
}

// What Azure publishes for items of 1 kB and 100 kB, drawn as a line; with nothing but ids indexed.
const readCharge = (size) => 1 + (kilobytes(size) - 1) * (9 / 99);
const writeCharge = (size) => 5 + (kilobytes(size) - 1) * (45 / 99);
const replaceCharge = (size) => 2 * writeCharge(size);

async function serveItem(req, res, container, id, text) {
  const data = text ? JSON.parse(text) : undefined;
  const partition = partitionOf(req, container, data);
  if (req.method === "POST") {
    const upsert = req.headers["x-ms-documentdb-is-upsert"] === "True" || req.headers["x-ms-documentdb-is-upsert"] === "true";
    checkItem(data, text);
    const older = find(container, partition, data.id);
    if (older && !upsert) throw new Refusal(409, "Entity with the specified id already exists in the system.");
    if (older) checkMatch(req, older);
    const item = put(container, partition, data, older);
    return [older ? 200 : 201, item.data, older ? replaceCharge(text.length) : writeCharge(text.length)];
  }
  const item = find(container, partition, id);
  if (!item) throw new Refusal(404, "Entity with the specified id does not exist in the system.");
  if (req.method === "GET") {
    if (req.headers["if-none-match"] === item.data._etag) return [304, undefined, 1];
    return [200, item.data, readCharge(JSON.stringify(item.data).length)];
  }
  checkMatch(req, item);
  if (req.method === "PUT") {
    checkItem(data, text);
    if (data.id !== id) throw new Refusal(400, "replacing id is not allowed");
    return [200, put(container, partition, data, item).data, replaceCharge(text.length)];
  }
  if (req.method === "DELETE") {
    itemsOf(container).delete(placeOf(partition, id));
    return [204, undefined, writeCharge(JSON.stringify(item.data).length)];
  }
  throw new Refusal(405, "not offered by this server for tests");
}

// -- queries --------------------------------------------------------------------------------------

// The SDK's read_items asks for hundreds of ids in one query. The package's engine takes a second
// for what Azure answers from an index, so these two shapes are answered from the map.
const IDS = /^SELECT \* FROM c WHERE (c\.id IN \(|\( \( c\.id = @param_id0 AND )/;

function byIds(container, parameters) {
  const found = [];
  const partitions = new Map(parameters.map(({ name, value }) => [name, value]));
  for (const { name, value } of parameters) {
    const match = /^@param_id(\d+)$/.exec(name);
    if (!match) continue;
    const partition = partitions.has(`@param_pk${match[1]}0`) ? partitions.get(`@param_pk${match[1]}0`) : value;
    const item = find(container, [partition], value);
    if (item) found.push(item);
  }
  return found;
}

function serveQuery(req, res, container, text) {
  const { query, parameters = [] } = JSON.parse(text);
  const partition = partitionOf(req, container);
  let after = Number(req.headers["x-ms-continuation"] || 0);
  const most = Number(req.headers["x-ms-max-item-count"]) > 0 ? Number(req.headers["x-ms-max-item-count"]) : 1000;
  let items;
  if (IDS.test(query)) {
    items = byIds(container, parameters).filter((item) => item.rid > after);
  } else {
    // A prefix of ids is looked at here too: it spares the engine what is another namespace's.
    const prefix = /STARTSWITH\(c\.id, @prefix\)/.test(query) ? parameters.find((p) => p.name === "@prefix").value : "";
    items = [...itemsOf(container).values()].filter(
      (item) => item.rid > after && isLive(item, container) && item.data.id.startsWith(prefix)
    );
  }
  if (partition) {
    const paths = container.read().partitionKey.paths;
    items = items.filter((item) => paths.every((keyPath, n) => at(item.data, keyPath) === partition[n]));
  }
  items.sort((a, b) => a.rid - b.rid);
  const engine = IDS.test(query) ? null : parseQuery(query);
  const rows = [];
  let size = 0;
  let next = 0;
  while (next < items.length && rows.length < most) {
    const block = items.slice(next, next + most - rows.length);
    next += block.length;
    after = block[block.length - 1].rid;
    const datas = block.map((item) => item.data);
    rows.push(...(engine ? engine.exec(datas, { parameters }).result : datas));
  }
  if (next < items.length) res.setHeader("x-ms-continuation", String(after));
  const body = { _rid: "", Documents: rows, _count: rows.length };
  size = JSON.stringify(body).length;
  res.setHeader("x-ms-item-count", String(rows.length));
  return [200, body, 2.3 + 0.5 * rows.length + (size / 1024) * (9 / 99)];
}

// -- requests -------------------------------------------------------------------------------------

function checkWhoAsks(req) {
  const given = decodeURIComponent(req.headers.authorization || "");
  const found = /^type=(\w+)&ver=1\.0&sig=(.*)$/.exec(given);
  if (found && found[1] === "aad" && found[2] === TOKEN) return;
  const date = (req.headers["x-ms-date"] || "").toLowerCase();
  const parts = decodeURIComponent(req.url.split("?")[0]).split("/").filter(Boolean);
  const type = parts.length % 2 ? parts[parts.length - 1] : parts[parts.length - 2] || "";
  const link = parts.length % 2 ? parts.slice(0, -1).join("/") : parts.join("/");
  const said = `${req.method.toLowerCase()}\n${type}\n${link}\n${date}\n\n`;
  const mac = crypto.createHmac("sha256", Buffer.from(KEY, "base64")).update(said).digest("base64");
  if (!found || found[1] !== "master" || found[2] !== mac) {
    throw new Refusal(401, "The input authorization token can't serve the request.");
  }
}

function ruleFor(req, isItem) {
  for (const rule of state.rules) {
    const meant = (rule.all || isItem) && (!rule.methods || rule.methods.includes(req.method));
    if (!meant || rule.times === 0) continue;
    rule.seen = (rule.seen || 0) + 1;
    if (rule.seen <= (rule.after || 0) || rule.seen % (rule.every || 1)) continue;
    if (rule.times > 0) rule.times -= 1;
    return rule;
  }
  return null;
}

async function answer(req, res, text) {
  checkWhoAsks(req);
  const found = ITEMS.exec(req.url.split("?")[0]);
  if (!found) {
    if (req.method === "POST" && /^\/+dbs(\/[^/]+\/colls)?\/?$/.test(req.url) && state.readOnly) {
      throw new Refusal(403, "may not be created with this identity");
    }
    const plain = route(req);
    if (!plain) throw new Refusal(400, "no route");
    const [params, handler] = plain;
    const body = await handler(account, req, res, params);
    return [res.statusCode, body, 1];
  }
  const [database, name, id] = found.slice(1).map((part) => part && decodeURIComponent(part));
  const container = account.database(database).collection(name);
  if (!container.read()) throw new Refusal(404, "Owner resource does not exist", { "x-ms-substatus": "1003" });
  if (req.headers["content-type"] === "application/query+json") return serveQuery(req, res, container, text);
  return serveItem(req, res, container, id, text);
}

async function serve(req, res) {
  const parts = [];
  for await (const part of req) parts.push(part);
  const bytes = Buffer.concat(parts);
  if (req.url === "/_control") {
    res.end(JSON.stringify(control(bytes.length ? JSON.parse(bytes) : {})));
    return;
  }
  const isItem = ITEMS.test(req.url.split("?")[0]);
  if (isItem) {
    const isQuery = req.headers["content-type"] === "application/query+json";
    const kind = isQuery ? "QUERY" : req.method;
    state.counts[kind] = (state.counts[kind] || 0) + 1;
  }
  const rule = ruleFor(req, isItem);
  if (rule && rule.delay) await sleep(rule.delay);
  if (rule && rule.drop === "before") return void req.socket.destroy();
  // The package's own handlers read the request as a stream: this one is read already.
  const again = Object.assign(require("stream").Readable.from([bytes]), {
    method: req.method, url: req.url, headers: req.headers,
  });
  let status, body, charge;
  try {
    if (rule && rule.status) {
      const headers = { "x-ms-substatus": String(rule.substatus || 0) };
      if (rule.retryAfter !== undefined) headers["x-ms-retry-after-ms"] = String(rule.retryAfter);
      throw new Refusal(rule.status, rule.message || "injected", headers);
    }
    [status, body, charge] = await answer(again, res, bytes.toString());
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    for (const [name, value] of Object.entries(error.headers)) res.setHeader(name, value);
    [status, body, charge] = [error.status, { code: String(error.status), message: error.message }, 1];
  }
  if (isItem) state.charge += charge;
  if (rule && rule.drop === "after") return void req.socket.destroy();
  res.statusCode = status;
  if (body && body._etag) res.setHeader("etag", body._etag);
  res.setHeader("content-type", "application/json");
  res.setHeader("x-ms-request-charge", charge.toFixed(2));
  res.setHeader("x-ms-activity-id", crypto.randomUUID());
  if (req.headers["a-im"] && status === 200) {
    if (req.headers["if-none-match"]) res.statusCode = 304;
    res.setHeader("etag", "1");
  }
  if (isItem && req.headers.prefer === "return=minimal" && status < 300) return void res.end();
  if (res.statusCode === 204 || res.statusCode === 304) return void res.end();
  res.end(JSON.stringify(body === undefined ? {} : body));
}

// -- control --------------------------------------------------------------------------------------

function control({ skew, rules, reset, readOnly, wipe, items }) {
  if (skew !== undefined) state.skew = skew;
  if (rules !== undefined) state.rules = rules;
  if (readOnly !== undefined) state.readOnly = readOnly;
  if (reset) Object.assign(state, { skew: 0, rules: [], readOnly: false, counts: {}, charge: 0 });
  if (wipe) begin();
  const said = { counts: state.counts, charge: state.charge, skew: state.skew, rules: state.rules };
  if (items) {
    const container = account.database(items[0]).collection(items[1]);
    const live = [...itemsOf(container).values()].filter((item) => isLive(item, container));
    said.items = live.map((item) => item.data);
  }
  return said;
}

const tls = process.argv[3] === "tls";
const pem = (name) => fs.readFileSync(path.join(modules, "@vercel/cosmosdb-server", name));
const options = tls ? { keepAlive: true, cert: pem("cert.pem"), key: pem("key.pem") } : { keepAlive: true };
const server = (tls ? https : http).createServer(options, (req, res) => {
  serve(req, res).catch((error) => {
    console.error(error);
    res.statusCode = 500;
    res.end(JSON.stringify({ message: String(error) }));
  });
});
server.keepAliveTimeout = 60_000;

function begin() {
  account = new Account("127.0.0.1", server.address().port);
  const here = `${tls ? "https" : "http"}://127.0.0.1:${server.address().port}/`;
  for (const where of ["writableLocations", "readableLocations"]) {
    account.read()[where][0].databaseAccountEndpoint = here;
  }
}

server.listen(0, "127.0.0.1", () => {
  begin();
  console.log(JSON.stringify({ port: server.address().port, key: KEY, token: TOKEN }));
});
process.stdin.on("end", () => process.exit(0)).resume();
