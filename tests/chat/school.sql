-- A small school, for questions that a shop has nothing about.
CREATE TABLE teachers (id INTEGER PRIMARY KEY, name TEXT, hired_on TEXT);
CREATE TABLE classes (id INTEGER PRIMARY KEY, name TEXT, teacher_id INTEGER REFERENCES teachers(id));
CREATE TABLE students (id INTEGER PRIMARY KEY, name TEXT, gender TEXT, born_on TEXT, class_id INTEGER REFERENCES classes(id));
CREATE TABLE subjects (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE rooms (id INTEGER PRIMARY KEY, name TEXT, seats INTEGER);
CREATE TABLE lessons (id INTEGER PRIMARY KEY, class_id INTEGER REFERENCES classes(id), subject_id INTEGER REFERENCES subjects(id),
  teacher_id INTEGER REFERENCES teachers(id), room_id INTEGER REFERENCES rooms(id), weekday TEXT, starts_at TEXT);
CREATE TABLE exams (id INTEGER PRIMARY KEY, subject_id INTEGER REFERENCES subjects(id), held_on TEXT);
CREATE TABLE results (id INTEGER PRIMARY KEY, exam_id INTEGER REFERENCES exams(id), student_id INTEGER REFERENCES students(id),
  score INTEGER, passed INTEGER);
CREATE TABLE absences (id INTEGER PRIMARY KEY, student_id INTEGER REFERENCES students(id), day TEXT);
INSERT INTO teachers VALUES (1, 'Mrs Baker', '2015-08-01'), (2, 'Mr Stone', '2019-08-01');
INSERT INTO classes VALUES (1, '7a', 1), (2, '7b', 2);
INSERT INTO students VALUES (1, 'Ann Lee', 'female', '2012-03-04', 1), (2, 'Tom Ray', 'male', '2011-11-20', 2);
INSERT INTO subjects VALUES (1, 'Mathematics'), (2, 'History');
INSERT INTO rooms VALUES (1, 'R101', 32), (2, 'Lab', 24);
INSERT INTO lessons VALUES (1, 1, 1, 1, 1, 'Monday', '08:00'), (2, 2, 2, 2, 2, 'Tuesday', '09:00');
INSERT INTO exams VALUES (1, 1, '2024-05-13'), (2, 2, '2024-06-02');
INSERT INTO results VALUES (1, 1, 1, 88, 1), (2, 2, 2, 41, 0);
INSERT INTO absences VALUES (1, 2, '2024-05-02');
