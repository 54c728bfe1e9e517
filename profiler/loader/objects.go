package loader

// Objects are the facts of a run's objects, by path as the subject's mappings
// name them; nil for a file that is no object, or could not be read.
type Objects map[string]*Facts

// Functions are the symbols of the PLT: bound at their first call, or when the
// object is relocated.
func (f *Facts) Functions() []string {
	names := make([]string, 0, len(f.PLT))
	for _, e := range f.PLT {
		if e.Lazy {
			names = append(names, e.Symbol)
		}
	}
	return names
}
