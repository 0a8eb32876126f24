/** Descriptors of kernel objects without a name: eventfd, timerfd, signalfd, epoll, memfd. */
import { survives } from "./state.ts";

survives("fd_eventfd", "eventfds");
survives("fd_timerfd", "timerfds");
survives("fd_signalfd", "signalfds");
survives("fd_epoll", "epoll instances and what they watch");
survives("fd_memfd", "memfds, open and mapped");
survives("fd_kinds", "namespaces, devices, files of the kernel and names");
survives("fd_contents", "maps of eBPF and message queues");
survives("waits_epoll", "threads in epoll_wait");
