#!/bin/bash
# Two sqlite3(1) on one database with a write-ahead log: one in a transaction,
# one that waits for its end: wal.sh WORK_DIRECTORY
cd "$1" || exit 2
mkfifo input clock
exec 7<>input 8<>clock
sqlite3 database <input >output 2>&1 &
cat >&7 <<END
PRAGMA journal_mode = WAL;
CREATE TABLE numbers (n);
BEGIN IMMEDIATE;
INSERT INTO numbers VALUES (1);
SELECT 'begun';
END
until grep -q begun output; do read -rt 0.01 -u 8; done
sqlite3 -cmd '.timeout 100000' database 'INSERT INTO numbers VALUES (2);' &
echo $$ >ready
until [[ -e go ]]; do read -rt 0.01 -u 8; done
{
  [[ $(jobs -r | wc -l) = 2 ]] || echo "one did not wait"
  sqlite3 -cmd '.timeout 0' database 'BEGIN IMMEDIATE' 2>&1 | grep -q locked ||
    echo "the lock is lost"
  echo "COMMIT;" >&7
  wait %2 || echo "who waited ends with $?"
  echo ".quit" >&7
  wait %1 || echo "who wrote ends with $?"
  [[ $(sqlite3 database 'SELECT sum(n) FROM numbers') = 3 ]] || echo "lost rows"
} >result.new
[[ -s result.new ]] && status=1 || { status=0; echo ok >result.new; }
mv result.new result
exit $status
