// Package protobuf appends fields in the wire format of protocol buffers
// (protobuf.dev/programming-guides/encoding). traceagent and metrics write the
// few messages that the intakes take with it: generated code would register its
// descriptors when the program starts, in every cold start.
//
// Zero values are left out, as proto3 has it, where the function says so.
package protobuf

import (
	"encoding/binary"
	"math"
)

// Wire types.
const (
	varint = 0
	fixed  = 1 // 64 bits
	length = 2
)

func appendKey(b []byte, field, wire int) []byte {
	return binary.AppendUvarint(b, uint64(field)<<3|uint64(wire))
}

// AppendVarint appends an int32, int64, uint32, uint64 or bool, unless it is 0.
func AppendVarint(b []byte, field int, v uint64) []byte {
	if v == 0 {
		return b
	}
	return binary.AppendUvarint(appendKey(b, field, varint), v)
}

// AppendDouble appends a double, unless it is 0.
func AppendDouble(b []byte, field int, v float64) []byte {
	if v == 0 {
		return b
	}
	return binary.LittleEndian.AppendUint64(appendKey(b, field, fixed), math.Float64bits(v))
}

// AppendBytes appends a string, bytes, a message or a packed field.
func AppendBytes[T string | []byte](b []byte, field int, v T) []byte {
	b = binary.AppendUvarint(appendKey(b, field, length), uint64(len(v)))
	return append(b, v...)
}

// AppendText appends a string, unless it is empty.
func AppendText(b []byte, field int, v string) []byte {
	if v == "" {
		return b
	}
	return AppendBytes(b, field, v)
}

// AppendEntry appends an entry of a map from strings to strings or bytes.
func AppendEntry[T string | []byte](b []byte, field int, key string, value T) []byte {
	n := 1 + uvarintLen(len(key)) + len(key) + 1 + uvarintLen(len(value)) + len(value)
	b = binary.AppendUvarint(appendKey(b, field, length), uint64(n))
	return AppendBytes(AppendBytes(b, 1, key), 2, value)
}

// AppendDoubleEntry appends an entry of a map from strings to doubles.
func AppendDoubleEntry(b []byte, field int, key string, value float64) []byte {
	n := 1 + uvarintLen(len(key)) + len(key) + 9
	b = binary.AppendUvarint(appendKey(b, field, length), uint64(n))
	b = appendKey(AppendBytes(b, 1, key), 2, fixed)
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(value))
}

func uvarintLen(n int) int {
	size := 1
	for n >= 0x80 {
		n >>= 7
		size++
	}
	return size
}
