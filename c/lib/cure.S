/*
 * The cure: code that is written into unused bytes of an executable page of a stopped task before the first
 * register of that task is changed. A tracer that dies at any later moment leaves a task that runs through here
 * and is as it was: the agent's memory unmapped, signal mask and registers put back.
 *
 *   +0   syscall        the tracer's first call in the task (mmap of the agent) is made here
 *   +2   rax = address of the agent's memory, or -errno: unmap it, put everything back
 *
 * System call user dispatch, which is off while we work, is switched on again by the last call.
 *
 * It uses no memory but its own read-only bytes, no flags after restoring them, and no vector registers.
 * While signals are unblocked the stack pointer is the task's own, so that a handler finds its stack.
 */
	.section .rodata
	.globl cure_begin, cure_end, cure_slots
	.hidden cure_begin, cure_end, cure_slots
	.balign 16
cure_begin:
	syscall
	mov %rax, %rdi
	mov slot_area_length(%rip), %rsi
	mov $11, %eax			/* munmap */
	syscall
	lea slot_flags(%rip), %rsp
	popfq
	mov slot_rsp(%rip), %rsp
	mov $2, %edi			/* SIG_SETMASK */
	lea slot_mask(%rip), %rsi
	mov $0, %edx
	mov $8, %r10d
	mov $14, %eax			/* rt_sigprocmask */
	syscall
	mov $59, %edi			/* PR_SET_SYSCALL_USER_DISPATCH */
	mov slot_dispatch_mode(%rip), %rsi
	mov slot_dispatch_offset(%rip), %rdx
	mov slot_dispatch_length(%rip), %r10
	mov slot_dispatch_selector(%rip), %r8
	mov $157, %eax			/* prctl */
	syscall
	mov slot_r15(%rip), %r15
	mov slot_r14(%rip), %r14
	mov slot_r13(%rip), %r13
	mov slot_r12(%rip), %r12
	mov slot_rbp(%rip), %rbp
	mov slot_rbx(%rip), %rbx
	mov slot_r11(%rip), %r11
	mov slot_r10(%rip), %r10
	mov slot_r9(%rip), %r9
	mov slot_r8(%rip), %r8
	mov slot_rax(%rip), %rax
	mov slot_rcx(%rip), %rcx
	mov slot_rdx(%rip), %rdx
	mov slot_rsi(%rip), %rsi
	mov slot_rdi(%rip), %rdi
	jmp *slot_rip(%rip)
	.balign 8
cure_slots:
/* The order of struct cure_slots in remote.c. */
slot_area_length: .quad 0
slot_mask: .quad 0
slot_flags: .quad 0
slot_rsp: .quad 0
slot_rip: .quad 0
slot_r15: .quad 0
slot_r14: .quad 0
slot_r13: .quad 0
slot_r12: .quad 0
slot_rbp: .quad 0
slot_rbx: .quad 0
slot_r11: .quad 0
slot_r10: .quad 0
slot_r9: .quad 0
slot_r8: .quad 0
slot_rax: .quad 0
slot_rcx: .quad 0
slot_rdx: .quad 0
slot_rsi: .quad 0
slot_rdi: .quad 0
slot_dispatch_mode: .quad 0
slot_dispatch_selector: .quad 0
slot_dispatch_offset: .quad 0
slot_dispatch_length: .quad 0
cure_end:
	.section .note.GNU-stack, "", @progbits
