#include <string>
#include <vector>

namespace store {
template <typename T> struct Table {
	std::vector<T> rows;
	__attribute__((noinline)) void insert(const T &row) { rows.push_back(row); }
};
__attribute__((noinline)) int count(const Table<std::string> &t, int at_least) { return (int)t.rows.size() >= at_least; }
}

int main(int argc, char **) {
	store::Table<std::string> t;
	t.insert("x");
	auto twice = [](int n) __attribute__((noinline)) { return 2 * n; };
	return store::count(t, argc) + twice(argc);
}
