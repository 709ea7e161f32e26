# The program of a sandbox on x86_64: waits, reaps orphans, ends on SIGTERM or
# SIGINT. See generate.sh.
.intel_syntax noprefix
.globl _start
_start:
  mov eax, 0x14002          # SIGINT, SIGTERM, SIGCHLD
  push rax
  xor edi, edi              # rt_sigprocmask(SIG_BLOCK, set, NULL, 8)
  mov rsi, rsp
  xor edx, edx
  push 8
  pop r10
  push 14
  pop rax
  syscall
wait:
  mov rdi, rsp              # rt_sigtimedwait(set, NULL, NULL, 8)
  xor esi, esi
  xor edx, edx
  push 8
  pop r10
  mov eax, 128
  syscall
  test eax, eax             # interrupted: wait on
  js wait
  cmp eax, 17
  je reap
  xor edi, edi              # exit(0)
  push 60
  pop rax
  syscall
reap:
  push -1                   # wait4(-1, NULL, WNOHANG, NULL)
  pop rdi
  xor esi, esi
  push 1
  pop rdx
  xor r10d, r10d
  push 61
  pop rax
  syscall
  test eax, eax
  jg reap
  jmp wait
