/*
 * The agent rides in the library, as a blob to copy into a task, and as a program to start a task from; and so does
 * the program of c/enter.
 */
	.section .rodata
	.globl agent_blob, agent_blob_end, agent_elf, agent_elf_end, enter_elf, enter_elf_end
	.hidden agent_blob, agent_blob_end, agent_elf, agent_elf_end, enter_elf, enter_elf_end
	.balign 16
agent_blob:
	.incbin "agent.bin"
agent_blob_end:
	.balign 16
agent_elf:
	.incbin "agent.elf"
agent_elf_end:
	.balign 16
enter_elf:
	.incbin "enter.elf"
enter_elf_end:
	.section .note.GNU-stack, "", @progbits
