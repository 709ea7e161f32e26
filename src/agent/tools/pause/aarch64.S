// The program of a sandbox on aarch64; see x86_64.S.
.globl _start
_start:
  movz x9, #0x4002          // SIGINT, SIGTERM, SIGCHLD
  movk x9, #1, lsl #16
  str x9, [sp, #-16]!
  movz x0, #0               // rt_sigprocmask(SIG_BLOCK, set, NULL, 8)
  mov x1, sp
  movz x2, #0
  movz x3, #8
  movz x8, #135
  svc #0
wait:
  mov x0, sp                // rt_sigtimedwait(set, NULL, NULL, 8)
  movz x1, #0
  movz x2, #0
  movz x3, #8
  movz x8, #137
  svc #0
  cmp x0, #17
  b.eq reap
  tbnz x0, #63, wait        // interrupted: wait on
  movz x0, #0               // exit(0)
  movz x8, #93
  svc #0
reap:
  movn x0, #0               // wait4(-1, NULL, WNOHANG, NULL)
  movz x1, #0
  movz x2, #1
  movz x3, #0
  movz x8, #260
  svc #0
  cmp x0, #0
  b.gt reap
  b wait
