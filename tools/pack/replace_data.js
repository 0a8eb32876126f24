/**
 * Replaces what a database of Deno's code cache holds for the program; the
 * loader has to be in it, too, and nothing else.
 *
 * Usage: deno run -A replace_data.js DATABASE URL FILE LOADER
 *
 * JavaScript, and no import: the types of node:sqlite are in a package that
 * nothing else needs.
 */
const { DatabaseSync } = globalThis.process.getBuiltinModule("node:sqlite");

/** Every table takes a page of its own at least, which is copied and read though it is empty. */
const PAGE_SIZE = 8192;

/** In V8's cached data: a hash of the flags, which have to be the same. */
const flagsIn = (data) => data.slice(12, 16).join();

const [path, url, file, loader] = Deno.args;
const compiled = Deno.readFileSync(file);
using database = new DatabaseSync(path);
const { changes } = database.prepare(
  "UPDATE codecache SET data = ? WHERE specifier = ?",
).run(compiled, url);
database.prepare(
  "DELETE FROM codecache WHERE specifier NOT IN (?, ?)",
).run(url, loader);
const { left } = database.prepare(
  "SELECT count(*) AS left FROM codecache",
).get();
if (changes !== 1 || left !== 2) {
  throw new Error(`${path} does not hold ${url} and ${loader}`);
}
const { data } = database.prepare(
  "SELECT data FROM codecache WHERE specifier = ?",
).get(loader);
if (flagsIn(data) !== flagsIn(compiled)) {
  throw new Error(`V8 had other flags for ${loader} than ckpt has`);
}
// All in one file again, back in the mode that Deno would set, and with the
// statistics that it would make.
database.exec("PRAGMA journal_mode = DELETE");
database.exec(`PRAGMA page_size = ${PAGE_SIZE}`);
database.exec("VACUUM");
database.exec("ANALYZE");
database.exec("PRAGMA journal_mode = WAL");
