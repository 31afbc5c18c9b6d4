/*
 * A plugin that knows nothing of the sdk: it makes one attempt, and tells by its exit
 * code what came of it: 0, or the error's number. It harms nothing where it succeeds.
 *
 *   hostile ATTEMPT HOST-PID FOLDER TOKEN
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pid_t host;
static const char *folder;

/* said is what a call that returns -1 has to say. */
static int said(long result) { return result < 0 ? errno : 0; }

static int opened(int flags, const char *format, ...) {
  char path[4096];
  va_list list;
  va_start(list, format);
  vsnprintf(path, sizeof path, format, list);
  va_end(list);
  return said(open(path, flags, 0600));
}

static int family(int domain, int kind, int protocol) { return said(socket(domain, kind, protocol)); }

static int dial(const char *name, size_t length) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) return errno;
  memcpy(to.sun_path, name, length);
  return said(connect(fd, (struct sockaddr *)&to, offsetof(struct sockaddr_un, sun_path) + length));
}

static int docker(void) {
  char path[108];
  snprintf(path, sizeof path, "%s/docker.sock", folder);
  return dial(path, strlen(path) + 1);
}

static int abstract(void) {
  char name[108] = {0};
  snprintf(name + 1, sizeof name - 1, "%s", folder);
  return dial(name, 1 + strlen(name + 1));
}

/* rest is for as long as the process is let live. */
static int rest(void) {
  sleep(3600);
  return 0;
}

/* forever is a process that has got away, as far as it can. */
static int forever(void *unused) {
  (void)unused;
  setpgid(0, 0);
  return rest();
}

static char stack[1 << 16];

/* away makes a process that shares this one's memory. */
static int away(void) { return said(clone(forever, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL)); }

/* awayByExec makes one with the flags that os/exec has, which a start needs, and which
 * executes this program once more. */
extern char **environ;
static char *again[8];
static int execAgain(void *unused) {
  (void)unused;
  setpgid(0, 0);
  execve("/proc/self/exe", again, environ);
  _exit(errno);
}

static int awayByExec(char **argv) {
  again[0] = argv[0];
  again[1] = "forever";
  for (int i = 2; i < 5; i++) again[i] = argv[i];
  pid_t pid = clone(execAgain, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
  if (pid < 0) return errno;
  int status = 0;
  if (waitpid(pid, &status, WNOHANG) == pid && WIFEXITED(status)) return WEXITSTATUS(status);
  return 0; /* it runs on, in a group of its own */
}

/* nested makes one with all the namespaces that the program was started in. */
static int nested(void) {
  long pid = syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) _exit(0);
  return said(pid);
}

static int doubleFork(void) {
  pid_t pid = fork();
  if (pid < 0) return errno;
  if (pid == 0) {
    if (fork() == 0) {
      setsid();
      return rest();
    }
    _exit(0);
  }
  return 0;
}

static int forkBomb(void) {
  for (int i = 0; i < 2000; i++) {
    pid_t pid = fork();
    if (pid < 0) return errno;
    if (pid == 0)
      return rest();
  }
  return 0;
}

static int readMemory(int nr) {
  char here[8];
  struct iovec local = {here, sizeof here}, remote = {stack, sizeof here};
  return said(syscall(nr, host, &local, 1, &remote, 1, 0));
}

static int hog(int flags) {
  for (int i = 0; i < 64; i++) /* 64 GiB that are never touched */
    if (mmap(NULL, 1UL << 30, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED) return errno;
  return 0;
}

static int descriptors(void) {
  for (int i = 0; i < 300; i++)
    if (dup(0) < 0) return errno;
  return 0;
}

static void nothing(int unused) { (void)unused; }

static int fill(void) {
  char path[4096], block[4096] = {1};
  snprintf(path, sizeof path, "%s/left", getenv("PLUGIN_UNIX_SOCKET_DIR"));
  signal(SIGXFSZ, nothing);
  int fd = open(path, O_WRONLY | O_CREAT, 0600);
  if (fd < 0) return errno;
  return said(write(fd, block, sizeof block));
}

static int changeMode(void) {
  char path[4096];
  snprintf(path, sizeof path, "%s/key", folder);
  return said(chmod(path, 0644));
}

/* others counts what is inherited besides input, output, errors and the socket. */
static int others(void) {
  int n = 0;
  for (int fd = 4; fd < 1024; fd++)
    if (fcntl(fd, F_GETFD) >= 0) n++;
  return n;
}

static int code(void) {
  static const unsigned char answer[] = {0x31, 0xc0, 0xc3}; /* xor eax, eax; ret */
  void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return errno;
  memcpy(p, answer, sizeof answer);
  return ((int (*)(void))p)();
}

/* pass sends count descriptors to the host in a message of length bytes. */
static int pass(int count, size_t length) {
  char text[8192] = {0}, control[CMSG_SPACE(sizeof(int) * 16)] = {0};
  struct iovec iov = {text, length};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int) * count);
  static unsigned long label;
  label++;
  memcpy(text, &label, sizeof label);
  memset(CMSG_DATA(c), 0, sizeof(int) * count); /* its input, again and again */
  return said(sendmsg(3, &m, MSG_NOSIGNAL));
}

static int flood(void) {
  for (int i = 0; i < 20000; i++) {
    int e = pass(1, 8);
    if (e == ETOOMANYREFS) sched_yield(); /* until the host has taken some */
    else if (e) return e;
  }
  return rest();
}

static int bogus(void) {
  pass(16, 4000);
  for (int i = 0; i < 1000; i++)
    if (send(3, folder, 3, MSG_NOSIGNAL) < 0) return errno == ECONNRESET ? EPIPE : errno; /* the host has hung up */
  return rest();
}

static int talk(int fd, long bytes) {
  char block[65536];
  memset(block, 'x', sizeof block);
  for (long n = 0; bytes < 0 || n < bytes; n += sizeof block)
    if (write(fd, block, sizeof block) < 0) return errno;
  return rest();
}

/* shake says a line of a handshake, in which %s is a socket of its own that answers
 * whatever it hears with nonsense, without end. */
static int shake(const char *line) {
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  snprintf(at.sun_path, sizeof at.sun_path, "%s/s", getenv("PLUGIN_UNIX_SOCKET_DIR"));
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 8) < 0) return errno;
  printf(line, at.sun_path);
  printf("\n");
  fflush(stdout);
  signal(SIGPIPE, SIG_IGN);
  for (;;) {
    char block[65536] = "HTTP/1.1 200 OK\r\n\r\n";
    int c = accept(fd, NULL, NULL);
    while (write(c, block, sizeof block) > 0) {
    }
    close(c);
  }
}

static int attempt(char **argv) {
  const char *what = argv[1];
  struct perf_event_attr counters = {.size = sizeof counters};
  struct rlimit more;
  struct timespec never = {0, -1}; /* no time: refused by whoever gets as far */
  siginfo_t info = {.si_code = SI_QUEUE};
  char key = 'x';
#define IS(name) if (strcmp(what, name) == 0) return
  IS("raw") family(AF_INET, SOCK_RAW, 1);
  IS("tcp") family(AF_INET, SOCK_STREAM, 0);
  IS("udp") family(AF_INET, SOCK_DGRAM, 0);
  IS("udp6") family(AF_INET6, SOCK_DGRAM, 0);
  IS("mptcp") family(AF_INET, SOCK_STREAM, 262);
  IS("vsock") family(AF_VSOCK, SOCK_STREAM, 0);
  IS("netlink") family(AF_NETLINK, SOCK_RAW, 0);
  IS("packet") family(AF_PACKET, SOCK_RAW, 0);
  IS("crypto") family(AF_ALG, SOCK_SEQPACKET, 0);
  IS("datagram") family(AF_UNIX, SOCK_DGRAM, 0);
  IS("docker") docker();
  IS("abstract") abstract();
  IS("iouring") said(syscall(SYS_io_uring_setup, 1, stack));
  IS("attach") said(ptrace(PTRACE_ATTACH, host, 0, 0));
  IS("seize") said(ptrace(PTRACE_SEIZE, host, 0, 0));
  IS("readv") readMemory(SYS_process_vm_readv);
  IS("writev") readMemory(SYS_process_vm_writev);
  IS("mem") opened(O_RDWR, "/proc/%d/mem", host);
  IS("maps") opened(O_RDONLY, "/proc/%d/maps", host);
  IS("root") opened(O_RDONLY, "/proc/%d/root/etc/passwd", host);
  IS("hostfd") opened(O_RDWR, "/proc/%d/fd/1", host);
  IS("selffd") opened(O_WRONLY, "/proc/self/fd/0");
  IS("selfexe") opened(O_WRONLY, "/proc/self/exe");
  IS("key") opened(O_RDONLY, "%s/key", folder);
  IS("link") said(link("/proc/self/exe", "x"));
  IS("tracefd") said(syscall(SYS_pidfd_open, host, 0));
  IS("getfd") said(syscall(SYS_pidfd_getfd, 0, 1, 0));
  IS("kill") said(kill(host, 0));
  IS("killall") said(kill(-1, 0));
  IS("tgkill") said(syscall(SYS_tgkill, host, host, 0));
  IS("queue") said(syscall(SYS_rt_sigqueueinfo, host, SIGCONT, &info));
  IS("owner") said(fcntl(0, F_SETOWN, host));
  IS("limits") said(syscall(SYS_prlimit64, host, RLIMIT_CORE, NULL, &more));
  IS("fork") doubleFork();
  IS("vfork") said(syscall(SYS_vfork));
  IS("clone") away();
  IS("forkbomb") forkBomb();
  IS("nested") nested();
  IS("exec-away") awayByExec(argv);
  IS("forever") forever(NULL);
  IS("shell") said(execl("/bin/sh", "sh", "-c", "exit 0", NULL));
  IS("memfd") said(memfd_create("x", 0));
  IS("execveat") said(syscall(SYS_execveat, 0, "", NULL, NULL, AT_EMPTY_PATH));
  IS("keyctl") said(syscall(SYS_keyctl, 0, -3, 0));
  IS("addkey") said(syscall(SYS_add_key, "user", "cavra-test", &key, 1, -3));
  IS("unshare") said(unshare(CLONE_NEWUSER));
  IS("setns") said(setns(0, CLONE_NEWNET));
  IS("netns") opened(O_RDONLY, "/proc/%d/ns/net", host);
  IS("mount") said(mount("none", "/proc/self/not-there", "tmpfs", 0, NULL));
  IS("chroot") said(chroot("/"));
  IS("bpf") said(syscall(SYS_bpf, 0, stack, 0));
  IS("perf") said(syscall(SYS_perf_event_open, &counters, 0, -1, -1, 0));
  IS("faults") said(syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY));
  IS("handle") said(syscall(SYS_open_by_handle_at, -1, NULL, 0));
  IS("tiocsti") said(ioctl(0, TIOCSTI, &key));
  IS("dumpable") said(prctl(PR_SET_DUMPABLE, 1));
  IS("tracer") said(prctl(PR_SET_PTRACER, -1L));
  IS("reaper") said(prctl(PR_SET_CHILD_SUBREAPER, 1));
  IS("personality") said(personality(READ_IMPLIES_EXEC));
  IS("clock") said(syscall(SYS_clock_settime, CLOCK_REALTIME, &never));
  IS("log") said(syscall(SYS_syslog, 10, NULL, 0));
  IS("sysv") said(shmctl(shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600), IPC_RMID, NULL));
  IS("chmod") changeMode();
  IS("memory") hog(MAP_PRIVATE);
  IS("shared") hog(MAP_SHARED);
  IS("stacks") hog(MAP_PRIVATE | MAP_GROWSDOWN);
  IS("fds") descriptors();
  IS("file") fill();
  IS("others") others();
  IS("write-input") said(write(0, "x", 1));
  IS("code") code();
  IS("flood") flood();
  IS("bogus") bogus();
  IS("stderr") talk(2, -1);
  IS("line") talk(1, 100 << 20);
  IS("empty") shake("");
  IS("silent") rest();
  IS("spin") ({ for (;;) __asm__ volatile("pause"); 0; });
  IS("shake") shake(argv[4]);
  return 125;
}

int main(int argc, char **argv) {
  if (argc < 5) return 124;
  host = atoi(argv[2]);
  folder = argv[3];
  errno = 0;
  _exit(attempt(argv));
}
