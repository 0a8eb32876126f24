/*
 * System V objects of an ipc namespace: message queues, semaphores, one of which a child waits for and another holds
 * (SEM_UNDO), and a segment that nobody is attached to.
 */
#ifndef NS_SYSV_H
#define NS_SYSV_H
#include "tree.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#define SYSV_LONGEST 5000

struct sysv_message {
  long type;
  char text[SYSV_LONGEST];
};

struct sysv {
  int queue, semaphores, detached;
  pid_t waiter, holder;
};

static void sysv_send(int queue, long type, const char *text, size_t length) {
  struct sysv_message message = {.type = type};
  memcpy(message.text, text, length);
  MUST(msgsnd(queue, &message, length, IPC_NOWAIT));
}

static struct sysv sysv_make(void) {
  struct sysv made;
  /* ids of those that come after one that was removed are large */
  MUST(msgctl((int)MUST(msgget(0x51, IPC_CREAT | 0600)), IPC_RMID, NULL));
  made.queue = (int)MUST(msgget(0x51, IPC_CREAT | IPC_EXCL | 0640));
  struct msqid_ds queue;
  MUST(msgctl(made.queue, IPC_STAT, &queue));
  queue.msg_perm.uid = 5, queue.msg_perm.gid = 6, queue.msg_qbytes = 9000;
  MUST(msgctl(made.queue, IPC_SET, &queue));
  char longest[SYSV_LONGEST];
  check_fill(longest, sizeof(longest), 51);
  sysv_send(made.queue, 3, "three", 5);
  sysv_send(made.queue, 1, "", 0);
  sysv_send(made.queue, 9, longest, sizeof(longest));
  MUST(semctl((int)MUST(semget(IPC_PRIVATE, 1, 0600)), 0, IPC_RMID));
  MUST(setresuid(-1, 7, -1));
  made.semaphores = (int)MUST(semget(0x52, 3, IPC_CREAT | IPC_EXCL | 0620));
  MUST(setresuid(-1, 0, -1));
  unsigned short values[] = {7, 0, 32767};
  MUST(semctl(made.semaphores, 0, SETALL, values));
  made.detached = (int)MUST(shmget(0x53, 3 * 4096 + 5, IPC_CREAT | IPC_EXCL | 0604));
  char *memory = (char *)MUST(shmat(made.detached, NULL, 0));
  check_fill(memory + 2 * 4096, 4096 + 5, 53);
  MUST(shmdt(memory));
  made.waiter = (pid_t)MUST(fork());
  if (made.waiter == 0) {
    struct sembuf take = {.sem_num = 1, .sem_op = -2};
    _exit(semop(made.semaphores, &take, 1) == 0 ? 17 : 1);
  }
  made.holder = (pid_t)MUST(fork());
  if (made.holder == 0) {
    struct sembuf take = {.sem_num = 2, .sem_op = -2767, .sem_flg = SEM_UNDO};
    MUST(semop(made.semaphores, &take, 1));
    for (;;) pause();
  }
  while (MUST(semctl(made.semaphores, 1, GETNCNT)) == 0) check_sleep_ms(1);
  while (MUST(semctl(made.semaphores, 2, GETVAL)) != 30000) check_sleep_ms(1);
  return made;
}

static void sysv_check_message(int queue, long type, const char *text, size_t length) {
  struct sysv_message message = {0};
  CHECK_EQ("length of the next message", (long)length, msgrcv(queue, &message, sizeof(message.text), 0, IPC_NOWAIT));
  CHECK_EQ("its type", type, message.type);
  check_bytes("its text", text, message.text, length);
}

static void sysv_check(const struct sysv *made) {
  char longest[SYSV_LONGEST];
  check_fill(longest, sizeof(longest), 51);
  struct msqid_ds queue = {0};
  CHECK_EQ("queue", made->queue, msgget(0x51, 0));
  CHECK_EQ("state of the queue", 0, msgctl(made->queue, IPC_STAT, &queue));
  CHECK_EQ("owner of the queue", 5, queue.msg_perm.uid);
  CHECK_EQ("group of the queue", 6, queue.msg_perm.gid);
  CHECK_EQ("creator of the queue", 0, queue.msg_perm.cuid);
  CHECK_EQ("mode of the queue", 0640, queue.msg_perm.mode);
  CHECK_EQ("room of the queue", 9000, queue.msg_qbytes);
  CHECK_EQ("messages", 3, queue.msg_qnum);
  sysv_check_message(made->queue, 3, "three", 5);
  sysv_check_message(made->queue, 1, "", 0);
  sysv_check_message(made->queue, 9, longest, sizeof(longest));
  struct semid_ds set = {0};
  unsigned short values[3] = {0};
  CHECK_EQ("semaphores", made->semaphores, semget(0x52, 3, 0));
  CHECK_EQ("state of the semaphores", 0, semctl(made->semaphores, 0, IPC_STAT, &set));
  CHECK_EQ("creator of the semaphores", 7, set.sem_perm.cuid);
  CHECK_EQ("mode of the semaphores", 0620, set.sem_perm.mode);
  CHECK_EQ("values", 0, semctl(made->semaphores, 0, GETALL, values));
  CHECK_EQ("first semaphore", 7, values[0]);
  CHECK_EQ("second semaphore", 0, values[1]);
  CHECK_EQ("third semaphore", 30000, values[2]);
  MUST(kill(made->holder, SIGKILL));
  tree_wait(made->holder, W_EXITCODE(0, SIGKILL));
  CHECK_EQ("third semaphore when its holder has ended", 32767, semctl(made->semaphores, 2, GETVAL));
  double end = check_seconds() + TREE_PATIENCE;
  while (semctl(made->semaphores, 1, GETNCNT) != 1 && check_seconds() < end) check_sleep_ms(1);
  CHECK_EQ("those who wait", 1, semctl(made->semaphores, 1, GETNCNT));
  struct sembuf give = {.sem_num = 1, .sem_op = 2};
  CHECK_EQ("giving", 0, semop(made->semaphores, &give, 1));
  tree_wait(made->waiter, W_EXITCODE(17, 0));
  struct shmid_ds segment = {0};
  CHECK_EQ("detached segment", made->detached, shmget(0x53, 0, 0));
  CHECK_EQ("its state", 0, shmctl(made->detached, IPC_STAT, &segment));
  CHECK_EQ("its size", 3 * 4096 + 5, segment.shm_segsz);
  CHECK_EQ("its mode", 0604, segment.shm_perm.mode);
  CHECK_EQ("attached to it", 0, segment.shm_nattch);
  char *memory = shmat(made->detached, NULL, SHM_RDONLY);
  CHECK("attaching", memory != (void *)-1);
  if (memory == (void *)-1) return;
  check_zero("its first pages", memory, 2 * 4096);
  check_filled("its last pages", memory + 2 * 4096, 4096 + 5, 53);
}
#endif
