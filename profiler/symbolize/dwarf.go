package symbolize

type dwarfCursor struct{}

func (c *cursor) dwarfFrames(uint64, string) []Frame { return nil }
