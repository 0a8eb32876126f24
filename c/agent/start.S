/* Offset 0 of the blob: the tracer enters here. */
	.section .text.entry, "ax"
	.globl agent_entry
agent_entry:
	xor %ebp, %ebp
	call agent_run
	ud2


/*
 * Offset 16: makes the memory behind this page writable (rdi, rsi, rdx: arguments of mprotect), leaves the result
 * in r12, and hands control to the tracer by the call in ebp with the arguments r13, r14, r15 (enum agent_yield).
 * Without a tracer, goes to the cure at rbx.
 */
	.balign 16
	mov $10, %eax
	syscall
	mov %rax, %r12
	mov %r13, %rdi
	mov %r14, %rsi
	mov %r15, %rdx
	mov %ebp, %eax
	syscall
	lea agent_entry(%rip), %rax
	jmp *%rbx

/*
 * Start of the agent as a program of its own, on restore: wait for the tracer. Descriptor 0 is a pipe whose
 * other end only ckpt holds: end of file means that ckpt is gone before it traced us.
 */
	.globl _start
_start:
	xor %edi, %edi
	lea -64(%rsp), %rsi
	mov $1, %edx
	xor %eax, %eax
	syscall
	cmp $-4, %rax
	je _start
	mov $231, %eax
	mov $1, %edi
	syscall
	ud2
	.section .note.GNU-stack, "", @progbits
