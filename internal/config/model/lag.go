package model

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

var (
	lagHex   = regexp.MustCompile(`^[-+]?0x[0-9a-fA-F]+`)
	lagOct   = regexp.MustCompile(`^[-+]?0[0-7]*`)
	lagDec   = regexp.MustCompile(`^[-+]?[1-9][0-9]*`)
	lagFloat = regexp.MustCompile(`^[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?`)
	// lagUnits in bytes.
	lagUnits = map[string]float64{"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
)

// FarthestLag is more than any position in the WAL can be, and what a lag is cut to, so that nothing overflows.
const FarthestLag = 1 << 61

// ParseLag reads the lag= of a check's path as Patroni's parse_int does (utils.py): bytes, or a number and a unit, rounded to
// whole ones of the next smaller unit; hexadecimal (0x10) and octal (010) numbers are such. counts is false for what Patroni
// ignores. What it fails at, so that there is no answer, is an error.
func ParseLag(text string) (limit int64, counts bool, err error) {
	text = strings.TrimSpace(text)
	var number float64
	rest := text
	if m := lagHex.FindString(text); m != "" {
		number, rest = whole(strings.Replace(m, "0x", "", 1), 16), text[len(m):]
	} else if m := lagOct.FindString(text); m != "" {
		number, rest = whole(m, 8), text[len(m):]
	} else if m := lagDec.FindString(text); m != "" {
		number, rest = whole(m, 10), text[len(m):]
	} else if !strings.HasPrefix(text, ".") {
		return 0, false, nil
	}
	if rest != "" && strings.ContainsAny(rest[:1], ".eE") {
		m := lagFloat.FindString(text)
		if m == "" {
			return 0, false, nil
		}
		if number, err = strconv.ParseFloat(m, 64); err != nil {
			return 0, false, err
		}
		rest = text[len(m):]
	}
	if unit := strings.TrimSpace(rest); unit != "" {
		size, known := lagUnits[unit]
		if !known {
			return 0, false, nil
		}
		smaller := max(size/1024, 1)
		number = math.RoundToEven(number*size/smaller) * smaller
	}
	return int64(min(max(math.RoundToEven(number), -FarthestLag), FarthestLag)), true, nil
}

// whole reads digits; far too many of them give a number that is far too large.
func whole(digits string, base int) float64 {
	n, _ := strconv.ParseInt(digits, base, 64)
	return float64(n)
}
