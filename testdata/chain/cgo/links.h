/* What links.c offers to main.go. */
#pragma once

enum deed { SLEEP, FAULT, SPIN, WRITE, BACK, BACK_AND_DOWN };

/* link10 → … → link0 → the deed; BACK calls Go again with the other deed. */
long down(int deed, int other);
