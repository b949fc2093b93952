package inventory

import (
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// words are the plain scalars that mean a boolean or nothing (YAML 1.1 as PyYAML reads it: y and n alone are texts).
var words = map[string]any{
	"yes": true, "Yes": true, "YES": true, "no": false, "No": false, "NO": false,
	"true": true, "True": true, "TRUE": true, "false": false, "False": false, "FALSE": false,
	"on": true, "On": true, "ON": true, "off": false, "Off": false, "OFF": false,
	"~": nil, "null": nil, "Null": nil, "NULL": nil, "": nil,
}

var (
	wholeForm = regexp.MustCompile(`^[-+]?(?:0b[0-1_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(?::[0-5]?[0-9])+)$`)
	floatForm = regexp.MustCompile(`^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|` +
		`[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*)$`)
)

// plain resolves a plain scalar by PyYAML's rules (its resolver.py and constructor.py) to nil, bool, int64, float64 or
// string. A number beyond int64 is a float64; a date, an infinity and a NaN, which JSON doesn't have, stay texts.
func plain(text string) any {
	if v, ok := words[text]; ok {
		return v
	}
	// A number of more digits than a float64 has magnitude for is none that anything could be, and takes long to read.
	if strings.IndexByte("-+.0123456789", text[0]) < 0 || len(text) > longestNumber {
		return text
	}
	digits := strings.ReplaceAll(text, "_", "")
	switch {
	case wholeForm.MatchString(text):
		if n, ok := whole(digits); ok {
			return n
		}
	case floatForm.MatchString(text):
		if f, ok := fraction(digits); ok {
			return f
		}
	}
	return text
}

const longestNumber = 400

func whole(digits string) (any, bool) {
	sign, rest := signOf(digits)
	base := 10
	switch {
	case strings.Contains(rest, ":"):
		total := new(big.Int)
		for _, part := range strings.Split(rest, ":") {
			n, ok := new(big.Int).SetString(part, 10)
			if !ok {
				return nil, false
			}
			total.Add(total.Mul(total, big.NewInt(60)), n)
		}
		return number(total, sign), true
	case strings.HasPrefix(rest, "0b"):
		base, rest = 2, rest[2:]
	case strings.HasPrefix(rest, "0x"):
		base, rest = 16, rest[2:]
	case len(rest) > 1 && rest[0] == '0':
		base = 8
	}
	n, ok := new(big.Int).SetString(rest, base)
	if !ok {
		return nil, false
	}
	return number(n, sign), true
}

func number(n *big.Int, sign int64) any {
	if n.Mul(n, big.NewInt(sign)); n.IsInt64() {
		return n.Int64()
	}
	f, _ := new(big.Float).SetInt(n).Float64()
	return f
}

func fraction(digits string) (float64, bool) {
	sign, rest := signOf(digits)
	total := 0.0
	for _, part := range strings.Split(rest, ":") {
		f, err := strconv.ParseFloat(part, 64)
		if err != nil {
			return 0, false
		}
		total = total*60 + f
	}
	return float64(sign) * total, true
}

func signOf(digits string) (int64, string) {
	switch digits[0] {
	case '-':
		return -1, digits[1:]
	case '+':
		return 1, digits[1:]
	}
	return 1, digits
}
