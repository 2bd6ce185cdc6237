/* Preloaded into the nodes of a cluster: cuts one node off from all others, not from its clients.

   The file CUT_NODE holds the node's process id, its port and the port of its bus, each in 4 bytes; a process id of 0
   cuts nothing. Reads and writes between that node and the others fail as on a connection that was reset, and no new
   connection is made. Other programs are not touched. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static volatile uint32_t *node; /* process id, port, port of the bus */

__attribute__((constructor)) static void begin(void) {
  const char *name = program_invocation_short_name;
  if (!getenv("CUT_NODE") || (!strstr(name, "valkey") && !strstr(name, "redis"))) return;
  int fd = open(getenv("CUT_NODE"), O_RDONLY | O_CLOEXEC);
  void *page = fd < 0 ? MAP_FAILED : mmap(NULL, 12, PROT_READ, MAP_SHARED, fd, 0);
  if (page != MAP_FAILED) node = page;
  if (fd >= 0) close(fd);
}

static uint32_t port_of(int (*name)(int, struct sockaddr *, socklen_t *), int fd) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  if (name(fd, (struct sockaddr *)&address, &size) || address.sin_family != AF_INET) return 0;
  return ntohs(address.sin_port);
}

static int is_cut(int fd) {
  if (!node || !node[0]) return 0;
  int failed, before = errno;
  if ((uint32_t)getpid() == node[0]) {
    uint32_t local = port_of(getsockname, fd); /* its clients are on its port, the nodes elsewhere */
    failed = local && local != node[1];
  } else {
    uint32_t peer = port_of(getpeername, fd);
    failed = peer && (peer == node[1] || peer == node[2]);
  }
  errno = failed ? ECONNRESET : before;
  return failed;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t read(int fd, void *to, size_t size) {
  static __typeof__(&read) real;
  if (!real) real = NEXT(read);
  return is_cut(fd) ? -1 : real(fd, to, size);
}

ssize_t write(int fd, const void *from, size_t size) {
  static __typeof__(&write) real;
  if (!real) real = NEXT(write);
  return is_cut(fd) ? -1 : real(fd, from, size);
}

ssize_t writev(int fd, const struct iovec *from, int count) {
  static __typeof__(&writev) real;
  if (!real) real = NEXT(writev);
  return is_cut(fd) ? -1 : real(fd, from, count);
}

int connect(int fd, const struct sockaddr *to, socklen_t size) {
  static __typeof__(&connect) real;
  if (!real) real = NEXT(connect);
  if (node && node[0] && to->sa_family == AF_INET) {
    uint32_t port = ntohs(((const struct sockaddr_in *)to)->sin_port);
    if ((uint32_t)getpid() == node[0] || port == node[1] || port == node[2]) {
      errno = ENETUNREACH;
      return -1;
    }
  }
  return real(fd, to, size);
}
