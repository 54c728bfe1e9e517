// The chain of chain.c through virtual calls, with
// destructors to run on the way back.
#include <memory>
#include <string>
#include <time.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

static volatile long sink;

NOINLINE long do_sleep(long n)
{
	timespec t = {0, 200000};
	for (int i = 0; i < 50; i++)
		n += nanosleep(&t, nullptr);
	return n;
}

NOINLINE long do_fault(long n)
{
	const int pages = 256;
	auto at = static_cast<volatile char *>(mmap(nullptr, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	madvise(const_cast<char *>(at), pages * 4096, MADV_NOHUGEPAGE);
	for (int i = 0; i < pages; i++)
		at[i * 4096] = n;
	return at[4096] + n;
}

NOINLINE long do_spin(long n)
{
	timespec begin, now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
	do {
		for (int i = 0; i < 100000; i++)
			sink = sink + (i ^ n);
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	} while ((now.tv_sec - begin.tv_sec) * 1000000000L + now.tv_nsec - begin.tv_nsec < 100000000L);
	return sink;
}

NOINLINE long do_write(long n)
{
	for (int i = 0; i < 200; i++)
		n += write(2, "", 0);
	return n;
}

struct Link {
	virtual long go(long (*deed)(long), long a) = 0;
	virtual ~Link() = default;
};

struct Link0 : Link {
	NOINLINE long go(long (*deed)(long), long a) override { return deed(a) + 1; }
};

#define LINK(n, under)                                                                                       \
	struct Link##n : Link {                                                                              \
		NOINLINE long go(long (*deed)(long), long a) override                                        \
		{                                                                                            \
			std::string word(n, 'x'); /* freed behind the call */                                \
			std::unique_ptr<Link> below = std::make_unique<Link##under>();                       \
			long r = below->go(deed, a * 3 + n);                                                 \
			return r + a + static_cast<long>(word.size());                                       \
		}                                                                                            \
	};
LINK(1, 0) LINK(2, 1) LINK(3, 2) LINK(4, 3) LINK(5, 4) LINK(6, 5) LINK(7, 6) LINK(8, 7) LINK(9, 8) LINK(10, 9)
LINK(11, 10) LINK(12, 11) LINK(13, 12) LINK(14, 13) LINK(15, 14) LINK(16, 15) LINK(17, 16) LINK(18, 17) LINK(19, 18) LINK(20, 19)
LINK(21, 20) LINK(22, 21) LINK(23, 22) LINK(24, 23) LINK(25, 24) LINK(26, 25) LINK(27, 26) LINK(28, 27) LINK(29, 28) LINK(30, 29)
LINK(31, 30) LINK(32, 31) LINK(33, 32) LINK(34, 33) LINK(35, 34) LINK(36, 35) LINK(37, 36) LINK(38, 37) LINK(39, 38) LINK(40, 39)

int main(int argc, char **)
{
	std::unique_ptr<Link> top = std::make_unique<Link40>();
	for (auto deed : {do_sleep, do_fault, do_spin, do_write})
		sink = sink + top->go(deed, argc);
	return 0;
}
