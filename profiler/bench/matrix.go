package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Matrix is a matrix file: variants with an environment of their own.
type Matrix struct {
	Base     string          `yaml:"base"` // default: the first
	Variants []MatrixVariant `yaml:"variants"`
}

// MatrixVariant is one variant of a Matrix.
type MatrixVariant struct {
	Name    string            `yaml:"name"`
	Command []string          `yaml:"command"`
	Env     map[string]string `yaml:"env"`
}

// ReadMatrix reads a matrix file and puts the base first. Unknown keys, names
// given twice and a base that is no variant are errors.
func ReadMatrix(from io.Reader) (*Matrix, error) {
	text, err := io.ReadAll(io.LimitReader(from, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("matrix: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	var m Matrix
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("matrix: %w", err)
	}
	if len(m.Variants) == 0 {
		return nil, errors.New("matrix: no variants")
	}
	seen := map[string]bool{}
	for _, v := range m.Variants {
		switch {
		case v.Name == "" || len(v.Command) == 0:
			return nil, errors.New("matrix: each variant needs a name and a command")
		case seen[v.Name]:
			return nil, fmt.Errorf("matrix: two variants are named %s", v.Name)
		}
		seen[v.Name] = true
	}
	if m.Base == "" {
		m.Base = m.Variants[0].Name
	}
	i := slices.IndexFunc(m.Variants, func(v MatrixVariant) bool { return v.Name == m.Base })
	if i < 0 {
		return nil, fmt.Errorf("matrix: the base %s is no variant", m.Base)
	}
	base := m.Variants[i]
	m.Variants = slices.Insert(slices.Delete(m.Variants, i, i+1), 0, base)
	return &m, nil
}
