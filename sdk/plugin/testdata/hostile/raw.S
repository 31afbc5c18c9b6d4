# A plugin without a C library: a call by the number and the way that its first
# argument's first letter says, and its error as the exit code.
#
#   i  getpid by the 32-bit entry, int 0x80
#   c  the same from 32-bit code
#   x  getpid by x32's number
#   r  io_uring_setup
#   s  socket(AF_INET, SOCK_STREAM)
#   f  fork
#   n  a number that no call has

        .global _start
        .text
_start:
        mov     16(%rsp), %rsi
        mov     (%rsi), %al
        cmp     $'i', %al
        je      entry32
        cmp     $'c', %al
        je      code32
        cmp     $'x', %al
        je      numbers
        cmp     $'r', %al
        je      ring
        cmp     $'s', %al
        je      socket
        cmp     $'f', %al
        je      fork
        cmp     $'n', %al
        je      unknown
        mov     $125, %edi
        jmp     leave

entry32:
        mov     $20, %eax
        int     $0x80
        xor     %eax, %eax
        jmp     report

code32:
        lea     stack32(%rip), %rsp
        pushq   $0x23
        lea     low(%rip), %rax
        pushq   %rax
        lretq
        .code32
low:
        movl    $20, %eax
        int     $0x80
        movl    $1, %eax
        xorl    %ebx, %ebx
        int     $0x80
        .code64

numbers:
        mov     $(0x40000000 + 39), %eax
        syscall
        xor     %eax, %eax
        jmp     report

ring:
        mov     $425, %eax
        mov     $1, %edi
        lea     buffer(%rip), %rsi
        syscall
        jmp     report

socket:
        mov     $41, %eax
        mov     $2, %edi
        mov     $1, %esi
        xor     %edx, %edx
        syscall
        jmp     report

fork:
        mov     $57, %eax
        syscall
        jmp     report

unknown:
        mov     $1000, %eax
        syscall

report:
        xor     %edi, %edi
        test    %rax, %rax
        jns     leave
        mov     %eax, %edi
        neg     %edi
leave:
        mov     $231, %eax
        syscall

        .bss
        .balign 16
buffer: .skip   256
        .skip   4096
stack32:
        .skip   16
        .section .note.GNU-stack,"",@progbits
