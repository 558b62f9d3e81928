"""One model is built at a time in this process.

While transformers builds a model it changes torch's default dtype and its initialisers for the whole process, so two
threads that load at once give each other's weights the wrong type. The lock is global because what it guards is.
"""

import threading

ONE_AT_A_TIME = threading.RLock()
