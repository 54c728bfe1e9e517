// A program with a generic type whose method inlines another.
mod store {
    pub struct Table<T> { pub rows: Vec<T> }

    impl<T: Clone> Table<T> {
        #[inline(never)]
        pub fn insert(&mut self, row: &T) -> usize {
            self.push(row); self.rows.len()
        }
        #[inline(always)]
        fn push(&mut self, row: &T) { self.rows.push(row.clone()) }
    }
}

fn main() {
    let mut table = store::Table { rows: vec![] };
    let n: usize = std::env::args().map(|a| table.insert(&a)).sum();
    println!("{n}");
}
