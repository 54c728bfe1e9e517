package unwind

// Bounds on one expression: PLT stubs and signal frames need a dozen steps.
const (
	maxExprSteps = 1000
	maxExprStack = 64
)

// evaluate computes a DWARF expression (DWARF 5, 2.5) over the registers of
// the frame that is being unwound; for registers the CFA lies on the stack at first.
func (w *walk) evaluate(expr []byte, cfa uint64, pushCFA bool) (uint64, bool) {
	r := reader{data: expr}
	stack := make([]uint64, 0, maxExprStack)
	if pushCFA {
		stack = append(stack, cfa)
	}
	push := func(v uint64) { stack = append(stack, v) }
	pop := func() uint64 {
		if len(stack) == 0 {
			r.bad = true
			return 0
		}
		v := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		return v
	}
	jump := func(offset int64) {
		if to := int64(r.at) + offset; to >= 0 && to <= int64(len(expr)) {
			r.at = int(to)
			return
		}
		r.bad = true
	}
	for steps := 0; r.left() > 0 && !r.bad; steps++ {
		if *w.steps++; steps == maxExprSteps || *w.steps > maxSteps || len(stack) > maxExprStack-2 {
			return 0, false
		}
		op := r.u8()
		switch {
		case op >= 0x30 && op <= 0x4f: // DW_OP_lit
			push(uint64(op - 0x30))
			continue
		case op >= 0x70 && op <= 0x8f: // DW_OP_breg
			push(w.register(uint64(op-0x70)) + uint64(r.sleb()))
			continue
		case op >= 0x1a && op <= 0x27 && op != 0x1f && op != 0x20 && op != 0x23, op >= 0x29 && op <= 0x2e:
			b, a := pop(), pop()
			v, ok := operate(op, a, b)
			if !ok {
				return 0, false
			}
			push(v)
			continue
		}
		switch op {
		case 0x03: // DW_OP_addr
			push(r.unsigned(8))
		case 0x06: // DW_OP_deref
			v, ok := w.load(pop())
			if !ok {
				return 0, false
			}
			push(v)
		case 0x08, 0x0a, 0x0c, 0x0e: // DW_OP_const1u, 2u, 4u, 8u
			push(r.unsigned(1 << ((op - 0x08) / 2)))
		case 0x09, 0x0b, 0x0d, 0x0f: // DW_OP_const1s, 2s, 4s, 8s
			push(uint64(r.signed(1 << ((op - 0x09) / 2))))
		case 0x10: // DW_OP_constu
			push(r.uleb())
		case 0x11: // DW_OP_consts
			push(uint64(r.sleb()))
		case 0x12: // DW_OP_dup
			v := pop()
			push(v)
			push(v)
		case 0x13: // DW_OP_drop
			pop()
		case 0x14, 0x15: // DW_OP_over, DW_OP_pick
			n := 1
			if op == 0x15 {
				n = int(r.u8())
			}
			if n >= len(stack) {
				return 0, false
			}
			push(stack[len(stack)-1-n])
		case 0x16: // DW_OP_swap
			b, a := pop(), pop()
			push(b)
			push(a)
		case 0x17: // DW_OP_rot
			c, b, a := pop(), pop(), pop()
			push(c)
			push(a)
			push(b)
		case 0x19: // DW_OP_abs
			v := int64(pop())
			push(uint64(max(v, -v)))
		case 0x1f: // DW_OP_neg
			push(-pop())
		case 0x20: // DW_OP_not
			push(^pop())
		case 0x23: // DW_OP_plus_uconst
			push(pop() + r.uleb())
		case 0x28: // DW_OP_bra
			if offset := r.signed(2); pop() != 0 {
				jump(offset)
			}
		case 0x2f: // DW_OP_skip
			jump(r.signed(2))
		case 0x92: // DW_OP_bregx
			reg := r.uleb()
			push(w.register(reg) + uint64(r.sleb()))
		case 0x94: // DW_OP_deref_size
			size := r.u8()
			v, ok := w.load(pop())
			if !ok || size == 0 || size > 8 {
				return 0, false
			}
			push(v << (64 - 8*size) >> (64 - 8*size))
		case 0x96: // DW_OP_nop
		case 0x9c: // DW_OP_call_frame_cfa
			push(cfa)
		default:
			return 0, false
		}
	}
	v := pop()
	return v, !r.bad
}

func operate(op uint8, a, b uint64) (uint64, bool) {
	truth := func(t bool) (uint64, bool) {
		if t {
			return 1, true
		}
		return 0, true
	}
	x, y := int64(a), int64(b)
	switch op {
	case 0x1a:
		return a & b, true
	case 0x1b: // DW_OP_div
		if y == 0 {
			return 0, false
		}
		if y == -1 { // the least integer has no opposite: Go would not panic, hardware would
			return uint64(-x), true
		}
		return uint64(x / y), true
	case 0x1c:
		return a - b, true
	case 0x1d: // DW_OP_mod
		if b == 0 {
			return 0, false
		}
		return a % b, true
	case 0x1e:
		return a * b, true
	case 0x21:
		return a | b, true
	case 0x22:
		return a + b, true
	case 0x24:
		return a << b, true
	case 0x25:
		return a >> b, true
	case 0x26:
		return uint64(x >> b), true
	case 0x27:
		return a ^ b, true
	case 0x29:
		return truth(x == y)
	case 0x2a:
		return truth(x >= y)
	case 0x2b:
		return truth(x > y)
	case 0x2c:
		return truth(x <= y)
	case 0x2d:
		return truth(x < y)
	case 0x2e:
		return truth(x != y)
	}
	return 0, false
}
