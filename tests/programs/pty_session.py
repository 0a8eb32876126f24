"""A talk with an interactive shell on a terminal, as pexpect has it: pty_session.py WORK_DIRECTORY"""
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

work = sys.argv[1]
errors = []
pid, shell = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", PS1="ready> ", HISTFILE="")
    os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "-i"])
fcntl.ioctl(shell, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
heard = ""


def until(pattern):
    """Reads until the pattern is there; returns what it found."""
    global heard
    end = time.monotonic() + 60
    while not (found := re.search(pattern, heard)):
        if not select.select([shell], [], [], max(0, end - time.monotonic()))[0]:
            raise TimeoutError(f"no {pattern} in {heard!r}")
        heard += os.read(shell, 4096).decode()
    heard = heard[found.end():]
    return found


def say(text):
    os.write(shell, text.encode())


def expect(what, expected, got):
    if expected != got:
        errors.append(f"{what}: before {expected!r}, after {got!r}")


until("ready> ")
say("sleep 1000 &\n")
background = until(r"\[1\] (\d+)\r")[1]
until("ready> ")
# "start" is not in what is typed, for that is echoed
say("sh -c 'echo st\"\"art; exec sleep 1001'\n")
until("start\r")
say("\x1a")
until("Stopped.*\r\nready> ")
# a line that is not complete, in the hands of readline
say("echo unfin")
until("unfin")

with open(f"{work}/ready", "w") as ready:
    print(os.getpid(), file=ready)
while not os.path.exists(f"{work}/go"):
    time.sleep(0.005)

say("ished\n")
until("\r\nunfinished\r\n")
say("stty size; jobs -l; echo e''nd\n")
text = until("(?s)31 97(.*)end\r\n")[1]
expect("the job in the background", True, bool(re.search(rf"\[1\].*{background} Running +sleep 1000 &", text)))
expect("the stopped job", True, bool(re.search(r"\[2\].* Stopped .*sleep 1001", text)))
say("fg\n")
until("sleep 1001")
deadline = time.monotonic() + 60
# the job has the terminal: that of the shell is not in the foreground
while os.tcgetpgrp(shell) == pid and time.monotonic() < deadline:
    time.sleep(0.005)
say("\x03")
until("ready> ")
say("kill %1; wait %1; echo \"status $?\"\n")
until("status 143\r")
say("exit 7\n")
expect("how the shell ends", 7, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
with open(f"{work}/result.new", "w") as result:
    result.write("\n".join(errors) + "\n" if errors else "ok\n")
os.rename(f"{work}/result.new", f"{work}/result")
sys.exit(1 if errors else 0)
