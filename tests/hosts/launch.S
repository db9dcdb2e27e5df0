/*
 * A launch is recorded on a stack of its own. A kernel's function may make the parameters of its next launch where the
 * recorder would have had its variables, and some bytes of them nobody writes.
 */
        .bss
        .balign 16
        .skip   1 << 20
recorders:
        .balign 16
callers:
        .skip   16

        .text
        .globl  _cudaLaunchKernelEx
        .type   _cudaLaunchKernelEx, %function
_cudaLaunchKernelEx:
#if defined(__x86_64__)
        mov     %rsp, callers(%rip)
        lea     recorders(%rip), %rsp
        call    record_launch
        mov     callers(%rip), %rsp
        ret
#elif defined(__aarch64__)
        adrp    x9, callers
        add     x9, x9, :lo12:callers
        mov     x10, sp
        stp     x10, x30, [x9]
        adrp    x10, recorders
        add     x10, x10, :lo12:recorders
        mov     sp, x10
        bl      record_launch
        adrp    x9, callers
        add     x9, x9, :lo12:callers
        ldp     x10, x30, [x9]
        mov     sp, x10
        ret
#else
#error "no kernel is built for this kind of processor"
#endif
        .section .note.GNU-stack, "", %progbits
