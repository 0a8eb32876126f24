/*
 * Sockets that the outside may hinder: sk_names WORK_DIRECTORY listens at WORK_DIRECTORY/socket, at the abstract name
 * ckpt-names-PID and at a TCP port, which is in the file `port`; with a further argument, it only connects to that path.
 */
#include "check.h"
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
  if (argc > 2) {
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", argv[2]);
    MUST(connect(fd, (struct sockaddr *)&address, sizeof(address)));
    check_ready();
    CHECK_EQ("it still sends", 1, (long)send(fd, "x", 1, MSG_NOSIGNAL));
    return check_finish();
  }
  MUST(chdir(check_dir));
  strcpy(address.sun_path, "socket");
  MUST(bind(fd, (struct sockaddr *)&address, sizeof(address)));
  MUST(listen(fd, 1));
  int abstract = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
  int n = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "ckpt-names-%d", getpid());
  address.sun_path[0] = 0;
  MUST(bind(abstract, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)));
  MUST(listen(abstract, 1));
  struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof(port);
  int tcp = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
  MUST(bind(tcp, (struct sockaddr *)&port, length));
  MUST(listen(tcp, 1));
  MUST(getsockname(tcp, (struct sockaddr *)&port, &length));
  char text[16];
  check_write_file("port", text, (size_t)snprintf(text, sizeof(text), "%d\n", ntohs(port.sin_port)));
  check_ready();
  struct sockaddr_in now = {0};
  MUST(getsockname(tcp, (struct sockaddr *)&now, &length));
  CHECK_EQ("the port", ntohs(port.sin_port), ntohs(now.sin_port));
  strcpy(address.sun_path, "socket");
  int client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
  CHECK_EQ("the path", 0, connect(client, (struct sockaddr *)&address, sizeof(address)));
  return check_finish();
}
