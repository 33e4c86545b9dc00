"""HTTP: takes uploads and jobs, tells their state; never loads torch or cv2."""
