package diag

// Nearest gives the known word that a misspelt one is at most two letters away from, a word of up to three letters one; the
// first of several that are as near. Empty if there is none.
func Nearest(misspelt string, known []string) string {
	best, distance := "", 3
	if len(misspelt) <= 3 {
		distance = 2
	}
	for _, word := range known {
		if d := Distance(misspelt, word); d < distance {
			best, distance = word, d
		}
	}
	return best
}

// Distance is the number of letters to change, insert or drop to make one word of another (Levenshtein).
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
