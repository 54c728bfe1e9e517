package unwind

import "fmt"

// ruleKind says how the caller's value of a register is found.
type ruleKind uint8

const (
	ruleSame      ruleKind = iota // it was not changed
	ruleUndefined                 // it cannot be found
	ruleOffset                    // in memory at CFA + offset
	ruleValOffset                 // it is CFA + offset
	ruleRegister                  // in another register
	ruleExpr                      // in memory at what an expression gives
	ruleValExpr                   // it is what an expression gives
)

type rule struct {
	kind   ruleKind
	reg    uint8
	offset int64
	expr   []byte
}

// row is how to unwind from one instruction of a function.
type row struct {
	cfa    rule // ruleRegister with an offset, or ruleValExpr
	saved  []savedRule
	ra     rule
	signal bool
}

type savedRule struct {
	reg uint8
	rule
}

// columns bounds the registers that are followed: the integer registers, the
// stack pointer, and the return address of x86-64.
const columns = 33

// state is the row under construction.
type state struct {
	cfa   rule
	rules [columns]rule
}

// maxRemembered bounds DW_CFA_remember_state, whose depth real tables keep at 1.
const maxRemembered = 32

// row executes the programs of f up to an address.
func (t *Table) row(f *fde, address uint64) (*row, error) {
	a := t.arch
	if t.work.Add(-int64(len(f.program)+len(f.cie.program))) < 0 {
		return nil, fmt.Errorf("%w: its programs are too long", errMalformed)
	}
	var s, initial state
	if f.cie.returnColumn >= columns {
		return nil, fmt.Errorf("%w: return address in column %d", errMalformed, f.cie.returnColumn)
	}
	if err := f.cie.run(f.cie.program, &s, nil, f.begin, address); err != nil {
		return nil, err
	}
	initial = s
	if err := f.cie.run(f.program, &s, &initial, f.begin, address); err != nil {
		return nil, err
	}
	r := &row{cfa: s.cfa, ra: s.rules[f.cie.returnColumn], signal: f.cie.signal}
	if r.cfa.kind != ruleRegister && r.cfa.kind != ruleValExpr || r.cfa.kind == ruleRegister && int(r.cfa.reg) >= a.registers {
		return nil, fmt.Errorf("%w: no CFA at %#x", errMalformed, address)
	}
	if r.ra.kind == ruleSame {
		if a.link == 0 {
			return nil, fmt.Errorf("%w: no return address at %#x", errMalformed, address)
		}
		r.ra = rule{kind: ruleRegister, reg: uint8(f.cie.returnColumn)}
	}
	for i, rule := range s.rules[:a.registers] {
		if rule.kind != ruleSame {
			r.saved = append(r.saved, savedRule{uint8(i), rule})
		}
	}
	return r, nil
}

// run executes instructions until they are about what lies behind address.
func (c *cie) run(program []byte, s, initial *state, location, address uint64) error {
	r := reader{data: program}
	var remembered []state
	set := func(reg uint64, to rule) {
		if reg < columns { // others hold no addresses that are needed
			s.rules[reg] = to
		}
	}
	register := func(n uint64) rule {
		if n >= columns {
			return rule{kind: ruleUndefined}
		}
		return rule{kind: ruleRegister, reg: uint8(n)}
	}
	advance := func(delta uint64) bool {
		location += delta * c.codeAlign
		return location <= address
	}
	for r.left() > 0 && !r.bad {
		op := r.u8()
		low := uint64(op & 0x3f)
		switch op & 0xc0 {
		case 0x40: // DW_CFA_advance_loc
			if !advance(low) {
				return nil
			}
			continue
		case 0x80: // DW_CFA_offset
			set(low, rule{kind: ruleOffset, offset: int64(r.uleb()) * c.dataAlign})
			continue
		case 0xc0: // DW_CFA_restore
			if initial != nil && low < columns {
				s.rules[low] = initial.rules[low]
			}
			continue
		}
		switch op {
		case 0x00: // DW_CFA_nop
		case 0x01: // DW_CFA_set_loc
			location = r.pointer(c.encoding&0x0f, 0, 0)
			if c.encoding&0x70 != 0 {
				return fmt.Errorf("%w: DW_CFA_set_loc with encoding %#x", errMalformed, c.encoding)
			}
			if location > address {
				return nil
			}
		case 0x02, 0x03, 0x04: // DW_CFA_advance_loc1, 2, 4
			if !advance(r.unsigned(1 << (op - 2))) {
				return nil
			}
		case 0x05: // DW_CFA_offset_extended
			reg := r.uleb()
			set(reg, rule{kind: ruleOffset, offset: int64(r.uleb()) * c.dataAlign})
		case 0x06: // DW_CFA_restore_extended
			if reg := r.uleb(); initial != nil && reg < columns {
				s.rules[reg] = initial.rules[reg]
			}
		case 0x07: // DW_CFA_undefined
			set(r.uleb(), rule{kind: ruleUndefined})
		case 0x08: // DW_CFA_same_value
			set(r.uleb(), rule{})
		case 0x09: // DW_CFA_register
			reg := r.uleb()
			set(reg, register(r.uleb()))
		case 0x0a: // DW_CFA_remember_state
			if len(remembered) == maxRemembered {
				return fmt.Errorf("%w: more than %d states remembered", errMalformed, maxRemembered)
			}
			remembered = append(remembered, *s)
		case 0x0b: // DW_CFA_restore_state
			if len(remembered) == 0 {
				return fmt.Errorf("%w: no state was remembered", errMalformed)
			}
			*s = remembered[len(remembered)-1]
			remembered = remembered[:len(remembered)-1]
		case 0x0c: // DW_CFA_def_cfa
			s.cfa = register(r.uleb())
			s.cfa.offset = int64(r.uleb())
		case 0x0d: // DW_CFA_def_cfa_register
			offset := s.cfa.offset
			s.cfa = register(r.uleb())
			s.cfa.offset = offset
		case 0x0e: // DW_CFA_def_cfa_offset
			s.cfa.offset = int64(r.uleb())
		case 0x0f: // DW_CFA_def_cfa_expression
			s.cfa = rule{kind: ruleValExpr, expr: r.bytes(r.uleb())}
		case 0x10: // DW_CFA_expression
			reg := r.uleb()
			set(reg, rule{kind: ruleExpr, expr: r.bytes(r.uleb())})
		case 0x11: // DW_CFA_offset_extended_sf
			reg := r.uleb()
			set(reg, rule{kind: ruleOffset, offset: r.sleb() * c.dataAlign})
		case 0x12: // DW_CFA_def_cfa_sf
			s.cfa = register(r.uleb())
			s.cfa.offset = r.sleb() * c.dataAlign
		case 0x13: // DW_CFA_def_cfa_offset_sf
			s.cfa.offset = r.sleb() * c.dataAlign
		case 0x14: // DW_CFA_val_offset
			reg := r.uleb()
			set(reg, rule{kind: ruleValOffset, offset: int64(r.uleb()) * c.dataAlign})
		case 0x15: // DW_CFA_val_offset_sf
			reg := r.uleb()
			set(reg, rule{kind: ruleValOffset, offset: r.sleb() * c.dataAlign})
		case 0x16: // DW_CFA_val_expression
			reg := r.uleb()
			set(reg, rule{kind: ruleValExpr, expr: r.bytes(r.uleb())})
		case 0x2c, 0x2d: // DW_CFA_AARCH64_negate_ra_state: signatures are stripped anyway
		case 0x2e: // DW_CFA_GNU_args_size
			r.uleb()
		case 0x2f: // DW_CFA_GNU_negative_offset_extended
			reg := r.uleb()
			set(reg, rule{kind: ruleOffset, offset: -int64(r.uleb()) * c.dataAlign})
		default:
			return fmt.Errorf("%w: instruction %#x", errMalformed, op)
		}
	}
	if r.bad {
		return fmt.Errorf("%w: a program is cut short", errMalformed)
	}
	return nil
}
