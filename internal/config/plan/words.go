package plan

import "github.com/pgporter/pgporter/internal/config/diag"

// suggestion says what may stand where an unknown word does.
func suggestion(word string, known []string) string {
	if near := diag.Nearest(word, known); near != "" {
		return "did you mean " + near
	}
	text := "one of "
	for i, k := range known {
		if i > 0 {
			text += ", "
		}
		text += k
	}
	return text
}

// near says which of several words a misspelt one probably is, or else what is wanted.
func near(word string, known []string, otherwise string) string {
	if word := diag.Nearest(word, known); word != "" {
		return "did you mean " + word
	}
	return otherwise
}
