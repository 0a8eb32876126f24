/**
 * State that CRIU's format has no place for. Where restoring without it would
 * be wrong, the inventory lists "ckpt:<feature>" among the plugins: CRIU then
 * refuses, because it has no plugin of that name. (It looks for none where the
 * directory of its plugins does not exist, /usr/lib/criu or `--libdir`.)
 */

const FEATURES = {
  "ckpt:personality": "the personality of a process",
  "ckpt:affinity": "the processors a thread may run on",
  "ckpt:xsave": "registers beyond those of CRIU's format",
  "ckpt:syscall-user-dispatch": "system calls dispatched to the program",
  "ckpt:tsc": "a forbidden time stamp counter",
  "ckpt:shared-vm": "memory that is that of the parent (CLONE_VM)",
  "ckpt:vfork": "a process that waits in vfork(2)",
  "ckpt:cgroup-namespace": "a cgroup namespace",
  "ckpt:ended-leader": "a process whose first thread has ended",
  "ckpt:ghost-attributes": "extended attributes of deleted files",
  "ckpt:thread-pidfd": "a pidfd of a thread",
  "ckpt:packets": "packets in a pipe",
  "ckpt:socket-names": "hard links of the file that a Unix socket is bound to",
  "ckpt:multicast": "sockets that have joined multicast groups",
  "ckpt:shared-ports": "a program that chooses among sockets that share a port",
  "ckpt:mapped-flocks": "locks of files that are only mapped",
  "ckpt:unaccepted": "TCP connections that wait to be accepted",
  "ckpt:waiting": "what was sent before a connection is accepted",
  "ckpt:corked": "datagrams that are not complete yet",
  "ckpt:sysv-shm": "attached System V shared memory of the host",
  "ckpt:semaphore-undo": "System V semaphores that a process holds (SEM_UNDO)",
  "ckpt:queues": "POSIX message queues",
  "ckpt:rings": "instances of io_uring",
  "ckpt:packet-rings": "packet sockets with rings in memory",
  "ckpt:eventfd": "an eventfd that is a semaphore, or with a high count",
  "ckpt:terminals": "lines, stopped output and the like of terminals",
  "ckpt:watches": "watched files without a name, or whole file systems",
  "ckpt:lost-events": "that events of watched files were lost",
  "ckpt:host-peers": "mounts that are peers of mounts outside",
  "ckpt:overlay": "overlays of directories that are part of the image",
  "ckpt:covered-files": "files that something is mounted over",
  "ckpt:removed-sources": "mounts of files or directories that were removed",
  "ckpt:nested-mounts":
    "a mount namespace below processes in that of the outside",
  "ckpt:tun": "network devices that the program serves",
  "ckpt:watched": "files in an epoll that its first process does not have",
} as const;

export type Feature = keyof typeof FEATURES;

/** Whether this version of ckpt restores what such a name stands for. */
export function isKnownFeature(name: string): name is Feature {
  return Object.hasOwn(FEATURES, name);
}
