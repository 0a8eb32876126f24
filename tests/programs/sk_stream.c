/*
 * One end of a TCP connection on which bytes go in both directions all the time, each byte known by its position:
 *
 *   sk_stream DIRECTORY listen ADDRESS          writes its port into the file `port`
 *   sk_stream DIRECTORY connect ADDRESS PORT
 *
 * The one that connects ends its direction when it is told to go; the other then ends its own. Both write how many
 * bytes they sent and received into the file `totals`: none is lost or repeated.
 */
#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum { PERIOD = 65521, AT_ONCE = 20000 };
static unsigned char pattern[PERIOD + AT_ONCE];
static atomic_llong sent, received;
static atomic_int stop;
static const char *wrong;
static int why;
static int connection;

static void *send_all(void *unused) {
  unsigned random = 1;
  while (!atomic_load(&stop)) {
    random = random * 1103515245 + 12345;
    size_t length = random / 65536 % AT_ONCE + 1;
    ssize_t n = send(connection, pattern + atomic_load(&sent) % PERIOD, length, MSG_NOSIGNAL);
    if (n < 0) {
      why = errno, wrong = "sending";
      return unused;
    }
    atomic_fetch_add(&sent, n);
    if (random / 65536 % 4 == 0) check_sleep_ms(1);
  }
  if (shutdown(connection, SHUT_WR) != 0) why = errno, wrong = "ending";
  return unused;
}

static void *receive_all(void *unused) {
  static unsigned char buffer[AT_ONCE];
  ssize_t n;
  while ((n = recv(connection, buffer, sizeof(buffer), 0)) > 0) {
    if (memcmp(buffer, pattern + atomic_load(&received) % PERIOD, (size_t)n) != 0) {
      wrong = "other bytes were received";
      break;
    }
    atomic_fetch_add(&received, n);
  }
  if (n < 0) why = errno, wrong = "receiving";
  atomic_store(&stop, 1);
  return unused;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  check_fill(pattern, PERIOD, 1);
  memcpy(pattern + PERIOD, pattern, AT_ONCE);
  struct sockaddr_in four = {.sin_family = AF_INET};
  struct sockaddr_in6 six = {.sin6_family = AF_INET6};
  bool is_six = strchr(argv[3], ':');
  struct sockaddr *address = is_six ? (void *)&six : (void *)&four;
  socklen_t length = is_six ? sizeof(six) : sizeof(four);
  MUST(inet_pton(address->sa_family, argv[3], is_six ? (void *)&six.sin6_addr : (void *)&four.sin_addr));
  connection = (int)MUST(socket(address->sa_family, SOCK_STREAM, 0));
  /* BBR takes a hundred pauses for a slow line, and needs minutes then for what is queued. */
  MUST(setsockopt(connection, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
  bool listens = strcmp(argv[2], "listen") == 0;
  if (listens) {
    char text[16];
    MUST(bind(connection, address, length));
    MUST(listen(connection, 1));
    MUST(getsockname(connection, address, &length));
    int n = snprintf(text, sizeof(text), "%d", ntohs(is_six ? six.sin6_port : four.sin_port));
    check_write_file("port", text, (size_t)n);
    connection = (int)MUST(accept(connection, NULL, NULL));
  } else {
    four.sin_port = six.sin6_port = htons((uint16_t)atoi(argv[4]));
    MUST(connect(connection, address, length));
  }
  pthread_t sender, receiver;
  MUST0(pthread_create(&sender, NULL, send_all, NULL));
  MUST0(pthread_create(&receiver, NULL, receive_all, NULL));
  if (!listens) {
    check_ready();
    atomic_store(&stop, 1);
  }
  MUST0(pthread_join(sender, NULL));
  MUST0(pthread_join(receiver, NULL));
  if (wrong) check_line("%s: %s\n", wrong, why ? strerror(why) : "");
  char text[64];
  int n = snprintf(text, sizeof(text), "%lld %lld", atomic_load(&sent), atomic_load(&received));
  check_write_file("totals", text, (size_t)n);
  return check_finish();
}
