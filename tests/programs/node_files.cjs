// A node that writes, reads and looks at a file all the time, by io_uring where UV_USE_IO_URING tells it to:
// node_files.cjs WORK_DIRECTORY. What it reads is what it has written.
const { existsSync, promises, renameSync, writeFileSync } = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");

process.chdir(process.argv[2]);
const BYTES = 4096;
let rounds = 0, wrong = 0;

async function work(file, place) {
  while (!existsSync("go") || rounds < 200) {
    const bytes = Buffer.alloc(BYTES, place + (rounds % 50));
    await file.write(bytes, 0, BYTES, place * BYTES);
    const { buffer } = await file.read(
      Buffer.alloc(BYTES),
      0,
      BYTES,
      place * BYTES,
    );
    if (buffer.compare(bytes) !== 0) wrong++;
    await promises.stat("data");
    if (++rounds === 100) writeFileSync("ready", "ready\n");
    await sleep(1);
  }
}

(async () => {
  const file = await promises.open("data", "w+");
  await Promise.all([1, 2, 3, 4].map((place) => work(file, place)));
  writeFileSync(
    "result.new",
    wrong === 0 ? "ok\n" : `${wrong} of ${rounds} reads were wrong\n`,
  );
  renameSync("result.new", "result");
})();
